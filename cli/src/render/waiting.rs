//! A rollout that waits, in lines: for what, and what to do about it.

use replay::answer::{HoldStatus, ObstacleKind, ObstacleStatus, WaitingStatus};

use super::rollout::name;

/// Which rollout waits, for what, and what to do about it. Of `holds` a line of their own says more.
pub(super) fn facts(waiting: &WaitingStatus, holds: &[HoldStatus]) -> Vec<(&'static str, String)> {
    let version = name(waiting.name());
    if waiting.waits_for.is_empty() {
        return vec![("waits", format!("{version}, its rollout is about to begin"))];
    }
    let by_hold = |obstacle: &ObstacleStatus| obstacle.kind == Some(ObstacleKind::Hold) && !holds.is_empty();
    let first_hold = waiting.waits_for.iter().position(by_hold);
    let fact = |(n, obstacle): (usize, &ObstacleStatus)| {
        let next = obstacle.next.as_ref().map(|next| format!("; `{next}`")).unwrap_or_default();
        let of = if n == 0 { format!("{version} is to be rolled out: ") } else { String::new() };
        let what = match by_hold(obstacle) {
            true => "the deployment is on hold".to_owned(),
            false => format!("{}{next}", obstacle.why),
        };
        (if n == 0 { "waits" } else { "" }, format!("{of}{what}"))
    };
    // Several holds are said once.
    let shown =
        waiting.waits_for.iter().enumerate().filter(|(n, obstacle)| !by_hold(obstacle) || first_hold == Some(*n));
    shown.map(|(_, obstacle)| obstacle).enumerate().map(fact).collect()
}
