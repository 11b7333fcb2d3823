//! What runs and what serves.

use async_trait::async_trait;
use replay::Moment;
use replay::answer::StatusAnswer;
use schemas::{EnvironmentName, ServiceName};
use workers::nodes::process::logs::log_path;

use super::address::addressed;
use super::{Answerer, Question, measured, unrecorded};
use crate::problem::Problem;

/// What runs and what serves at a moment: of every service, or of one, in every environment or in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusQuestion {
    /// Only this service.
    pub service: Option<ServiceName>,
    /// Only this environment's deployments.
    pub environment: Option<EnvironmentName>,
    /// The moment.
    pub moment: Moment,
}

addressed!(StatusQuestion, ["/v1/status"], { service, environment, moment });

impl StatusQuestion {
    /// Asks what runs and serves now.
    pub fn now(service: Option<&ServiceName>, environment: Option<&EnvironmentName>) -> Self {
        Self { service: service.cloned(), environment: environment.cloned(), moment: Moment::Now }
    }
}

#[async_trait]
impl Question for StatusQuestion {
    type Answer = StatusAnswer;

    fn is_long(&self) -> bool {
        self.moment != Moment::Now
    }

    async fn answer(&self, by: &dyn Answerer) -> Result<StatusAnswer, Problem> {
        let Self { service, environment, moment } = self;
        let (service, environment) = (service.as_ref(), environment.as_ref());
        let mut status = by.reader().status(*moment, service, environment).await?;
        for service in &mut status.services {
            service.deployments.retain(|found| environment.is_none_or(|wanted| *wanted == found.environment));
        }
        if *moment != Moment::Now {
            return Ok(status);
        }
        if service.is_some() {
            status.name_logs(|node| log_path(by.data(), node).display().to_string());
            measured::measure(by, &mut status).await;
        }
        status.name_unrecorded(unrecorded(by, service, environment));
        if let Some(silent) = by.silent_router() {
            status.name_silent_router(silent);
        }
        match (by.clock_trouble(status.at.time), by.ledger()) {
            (Some(trouble), Some(_)) => status.name_clock(&trouble),
            // A rollout that nobody drives is held by no clock.
            (trouble, _) => status.clock = trouble.map(|trouble| trouble.to_string()),
        }
        Ok(status)
    }
}
