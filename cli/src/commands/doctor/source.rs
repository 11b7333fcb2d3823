//! The sources that policies name: whether each answers now, and what it lacks.

use api::question::ProductionQuestion;
use futures::{StreamExt as _, stream};
use replay::Moment;
use replay::answer::{DeploymentStatus, ServiceAt};
use schemas::policy::JudgementPolicy;
use schemas::{ErrorText, Timestamp, Weight};
use workers::measures::{self, Asked};

use super::Finding;
use crate::client::LedgerClient;

const THING: &str = "source";

/// How many sources are tried at once.
const AT_ONCE_MAX: usize = 8;

/// Tries the source of measurements of each policy that names one, as `apply` and `roll` do.
pub(super) async fn findings(ledger: &LedgerClient) -> Vec<Finding> {
    // What cannot be read is said elsewhere.
    let Ok(production) = ledger.ask(&ProductionQuestion { moment: Moment::Now }).await else { return vec![] };
    let tried =
        stream::iter(production.services.iter().filter_map(named)).map(|(service, policy)| tried(service, policy));
    tried.buffered(AT_ONCE_MAX).collect::<Vec<_>>().await.into_iter().flatten().collect()
}

/// The policy of a service that is not retired everywhere, if it names a source.
fn named(service: &ServiceAt) -> Option<(&ServiceAt, &JudgementPolicy)> {
    let policy = &service.policy.as_ref()?.judgement;
    let deployments = &service.status.deployments;
    let is_retired = !deployments.is_empty() && deployments.iter().all(|of| of.retired_at.is_some());
    (!policy.source().is_router() && !is_retired).then_some((service, policy))
}

async fn tried(service: &ServiceAt, policy: &JudgementPolicy) -> Vec<Finding> {
    let serving: Vec<Asked> = service.status.deployments.iter().filter_map(serving).collect();
    let name = &service.status.service;
    let lacks = measures::test_source(policy, &serving, Timestamp::now()).await;
    if lacks.is_empty() {
        return vec![Finding::ok(THING, format!("{name}: the {} that its policy names answers", policy.source().name))];
    }
    let finding = |lack: String| {
        let (what, next) = ErrorText::of(lack).hint_or("look at it, or correct the policy's address");
        Finding::fail(THING, format!("{name}: {what}"), format!("{next}; rollouts of {name} hold until it is fixed"))
    };
    lacks.into_iter().map(finding).collect()
}

/// The stacks of a deployment that have traffic; none without any.
fn serving(of: &DeploymentStatus) -> Option<Asked> {
    let versions = of.versions.iter().filter(|version| version.weight_set > Weight::ZERO);
    let stacks = versions.map(|version| (version.stack, version.name())).collect();
    let asked = Asked { deployment: of.deployment.clone(), stacks };
    (!asked.stacks.is_empty()).then_some(asked)
}
