//! The way back for eyes: where a rollback would go, what one waits for, and users on a stack that does not pass.

use replay::answer::{DeploymentStatus, RollbackTarget, StrandedStatus, UsersGetStatus};
use schemas::StackName;

use super::rollout::name;
use super::words::{BAD, WARN};

/// How a deployment stands whose rollback waits for its target, above all for the users.
pub(super) fn headline(deployment: &DeploymentStatus, target: &StackName) -> (&'static str, String) {
    let rolls = format!("rolls back to {target} as soon as its stack is ready");
    match deployment.stranded.first() {
        Some(stranded) => (
            BAD,
            format!("{rolls}; {} of users are on {}, which does not pass", stranded.weight, name(stranded.name())),
        ),
        None => (WARN, format!("{rolls}; users stay where they are until then")),
    }
}

/// What a rollback that has begun waits for, and how to overrule that.
pub(super) fn rolling_back(deployment: &DeploymentStatus) -> Option<String> {
    let target = deployment.rolling_back_to_name()?;
    let waits = deployment.rolling_back.as_ref().map(|waits| format!(": {}", waits.why)).unwrap_or_default();
    let next = deployment.rolling_back.as_ref().and_then(|waits| waits.next.as_ref());
    let next = next.map(|next| format!("; `{next}` sends all users there now")).unwrap_or_default();
    Some(format!("to {target} as soon as its stack is ready{waits}{next}"))
}

/// Which users are on a stack that does not pass, as far as somebody follows the ledger who would know, and what moves them.
pub(super) fn stranded(deployment: &DeploymentStatus) -> impl Iterator<Item = String> {
    let followed = deployment.seen.is_none();
    deployment.stranded.iter().filter(move |_| followed).map(told_stranded)
}

/// What users get that nobody meant them to, as far as somebody follows the ledger who would know, and what moves them.
pub(super) fn users_get(deployment: &DeploymentStatus) -> Option<String> {
    let UsersGetStatus { why, next } = deployment.users_get.as_ref().filter(|_| deployment.seen.is_none())?;
    let next =
        next.as_ref().map(|next| format!("; `{next}` sends them all to a version that passes")).unwrap_or_default();
    Some(format!("{why}{next}"))
}

/// Where users are stranded, and what moves them: `50 % of users are on 1.0, which does not pass (exited with code 1); ..`.
pub(crate) fn told_stranded(stranded: &StrandedStatus) -> String {
    let next = stranded.next.as_ref().map(|next| format!("; `{next}` moves them now")).unwrap_or_default();
    format!("{}{next}", where_stranded(stranded))
}

/// Where users are stranded, and why: `50 % of users are on 1.0, which does not pass (exited with code 1)`.
pub(crate) fn where_stranded(stranded: &StrandedStatus) -> String {
    let StrandedStatus { weight, why, .. } = stranded;
    format!("{weight} of users are on {}, which does not pass ({why})", name(stranded.name()))
}

/// Where a rollback would go, and what is known of it.
pub(super) fn target(target: &RollbackTarget, is_followed: bool) -> String {
    let version = target.name().map_or("an unknown version".to_owned(), |name| name.to_string());
    match (target.warm, &target.failing, target.stack) {
        (true, None, _) => format!("{version}, warm"),
        (true, Some(why), _) => format!("{version}: does not pass ({why}), and neither does what users are on"),
        (false, Some(why), _) => {
            let next = match is_followed {
                true => "`rollback` starts it again first",
                false => "start `ionledger up`; `rollback` then starts it again first",
            };
            format!("{version}: does not pass ({why}); {next}")
        }
        (false, None, Some(_)) => format!("{version}, not ready"),
        (false, None, None) => format!("{version}, gone, would be deployed again"),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::{Value, json};

    use super::super::examples::{bare, now, status};
    use super::super::{fleet, status as trees};

    fn stranded(deployment: &mut Value) {
        deployment["rollout"] = Value::Null;
        deployment["stranded"] = json!([{"version": "1.2.3", "stack": "01900000-0000-7000-8000-000000000001", "weight": 5000,
            "why": "exited with code 1", "next": "ionledger traffic api 1.2.4 100 --again --reason WHY"}]);
    }

    fn facts(change: impl FnOnce(&mut Value)) -> String {
        let text = bare(&trees::eyes(&status(change), &now()));
        let facts = text.lines().take_while(|line| !line.starts_with('├'));
        facts.map(str::trim).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_rollback_that_waits_says_for_what_and_who_gets_errors_meanwhile() {
        let waits = |deployment: &mut Value| {
            stranded(deployment);
            deployment["rolling_back_to"] = json!("1.2.3");
            deployment["rolling_back"] =
                json!({"why": "0 of 2 nodes ready (exited with code 1)", "next": "ionledger rollback api --unready"});
        };
        assert_snapshot!(facts(waits), @r"
production/api  ✖ rolls back to 1.2.3 as soon as its stack is ready; 50 % of users are on 1.2.3, which does not pass
users at    http://127.0.0.1:8080
rolls back  to 1.2.3 as soon as its stack is ready: 0 of 2 nodes ready (exited with code 1); `ionledger rollback api --unready` sends all users there now
stranded    50 % of users are on 1.2.3, which does not pass (exited with code 1); `ionledger traffic api 1.2.4 100 --again --reason WHY` moves them now
");
        let fleet = bare(&fleet::eyes(&status(waits), &now(), 200));
        assert!(
            fleet.contains("50 % of users are on 1.2.3, which does not pass; 0 of 2 nodes ready (exited"),
            "{fleet}"
        );
        let fleet = bare(&fleet::eyes(&status(stranded), &now(), 200));
        assert!(fleet.contains("50 % of users are on 1.2.3, which does not pass (exited with code 1)"), "{fleet}");
    }

    #[test]
    fn a_target_is_shown_with_what_is_known_of_it() {
        let target = |warm: bool, stack: Option<&str>, failing: Option<&str>| {
            let stack = stack.map(|_| "01900000-0000-7000-8000-000000000001");
            let text = facts(|deployment| {
                let target =
                    json!({"version": "1.0", "stack": stack, "warm": warm, "failing": failing, "passed_over": []});
                deployment["rollback_target"] = target;
            });
            text.lines().last().unwrap().to_owned()
        };
        let (stack, dead) = (Some("one"), Some("exited with code 1"));
        assert_eq!(target(true, stack, None), "rollback to  1.0, warm");
        let starts = "rollback to  1.0: does not pass (exited with code 1); `rollback` starts it again first";
        assert_eq!(target(false, stack, dead), starts);
        let all = "rollback to  1.0: does not pass (exited with code 1), and neither does what users are on";
        assert_eq!(target(true, stack, dead), all);
        assert_eq!(target(false, None, None), "rollback to  1.0, gone, would be deployed again");
        let failing: replay::answer::RollbackTarget =
            serde_json::from_value(json!({"version": "1.0", "stack": null, "warm": false,
            "failing": "exited with code 1", "passed_over": []}))
            .unwrap();
        let unfollowed =
            "1.0: does not pass (exited with code 1); start `ionledger up`; `rollback` then starts it again first";
        assert_eq!(super::target(&failing, false), unfollowed);
    }
}
