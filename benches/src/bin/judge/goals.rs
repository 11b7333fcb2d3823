//! The goals, and whether they are met.

/// What was promised and what came of it.
#[derive(Default)]
pub(crate) struct Goals(Vec<Goal>);

struct Goal {
    what: String,
    measured: f64,
    most: f64,
}

impl Goals {
    /// Takes note that `measured` is to be at most `most`.
    pub(crate) fn at_most(&mut self, what: &str, measured: f64, most: f64) {
        self.0.push(Goal { what: what.to_owned(), measured, most });
    }

    /// Takes note of something that is to hold.
    pub(crate) fn holds(&mut self, what: &str, holds: bool) {
        self.at_most(what, f64::from(u8::from(!holds)), 0.0);
    }

    /// Prints each goal and returns whether all are met.
    pub(crate) fn print(&mut self) -> bool {
        println!("\n### Goals\n\n| goal | measured | at most | |\n| --- | ---: | ---: | --- |");
        self.0.sort_by(|a, b| a.what.split(' ').next().cmp(&b.what.split(' ').next()));
        for goal in &self.0 {
            let met = if goal.is_met() { "met" } else { "**missed**" };
            println!("| {} | {} | {} | {met} |", goal.what, number(goal.measured), number(goal.most));
        }
        self.0.iter().all(Goal::is_met)
    }
}

/// Returns the most hits of `runs` that a chance of `bound` gives in 99 of 100 cases: more of them, and it is larger.
pub(crate) fn allowed(runs: usize, bound: f64) -> f64 {
    let mean = runs as f64 * bound;
    (mean + 2.33 * (mean * (1.0 - bound)).sqrt()).floor()
}

impl Goal {
    fn is_met(&self) -> bool {
        self.measured <= self.most
    }
}

fn number(x: f64) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
