//! The sources that are supported, by the names that policies have for them.
//!
//! A further source is a file beside this one with its [`Source`], a row in [`SUPPORTED`], and its settings in the policy
//! (`schemas::policy::JudgementPolicy::source` gives it its name and its interval).

use std::time::Duration;

use schemas::Timestamp;
use schemas::policy::JudgementPolicy;

use super::{Asked, Failure, Measured, Reading, Source, Span, prometheus};

/// Every source but the router's own counters, which are read with its routes.
pub const SUPPORTED: Registry = Registry(&[Adapter { name: "prometheus", open: prometheus::open }]);

/// How long a policy's source is tested at most, when it is declared or relied on.
const TEST_MAX: Duration = Duration::from_secs(2);

/// Adapters by the name of what they read.
#[derive(Clone, Copy, Debug)]
pub struct Registry(pub &'static [Adapter]);

/// How a source is made.
#[derive(Clone, Copy, Debug)]
pub struct Adapter {
    /// Its name in the policy.
    pub name: &'static str,
    /// Returns it as the policy says that it is to be asked.
    pub open: fn(&JudgementPolicy) -> Result<Box<dyn Source>, Failure>,
}

impl Registry {
    /// Returns the source that `policy` names; none if it names the router.
    ///
    /// # Errors
    ///
    /// [`Failure::Unasked`] if it cannot be asked as the policy says, or this program does not know it.
    pub fn open(&self, policy: &JudgementPolicy) -> Result<Option<Box<dyn Source>>, Failure> {
        let named = policy.source();
        if named.is_router() {
            return Ok(None);
        }
        match self.0.iter().find(|adapter| adapter.name == named.name) {
            Some(adapter) => (adapter.open)(policy).map(Some),
            None => {
                let reason = "this program does not know it; start a newer `ionledger`".to_owned();
                Err(Failure::Unasked { at: format!("the source `{}`", named.name), reason })
            }
        }
    }

    /// Returns what the source that `policy` names has counted from `from` until now, as far as it has arrived.
    ///
    /// # Errors
    ///
    /// [`Failure`]: nothing is known; ask again from the same moment later.
    pub async fn read(
        &self,
        policy: &JudgementPolicy,
        asked: &Asked,
        from: Timestamp,
        now: Timestamp,
    ) -> Result<Reading, Failure> {
        let Some(source) = self.open(policy)? else {
            let at = format!("the router of {}", asked.deployment);
            return Err(Failure::Unasked { at, reason: "its counters are read with its routes".to_owned() });
        };
        let to = now.checked_sub(source.limits().lag).unwrap_or(from).max(from);
        source.read(asked, Span { from, to }).await
    }

    /// Tests the source that `policy` names, if it names one, within 2 s. `serving` are the stacks that serve. Returns what
    /// is wrong, each as a sentence that names the source, the cause and the next step.
    pub async fn test_source(&self, policy: &JudgementPolicy, serving: &[Asked], now: Timestamp) -> Vec<String> {
        let source = match self.open(policy) {
            Ok(Some(source)) => source,
            Ok(None) => return vec![],
            Err(failure) => return vec![failure.to_string()],
        };
        match tokio::time::timeout(TEST_MAX, source.test_source(serving, now)).await {
            Ok(Ok(lacks)) => lacks,
            Ok(Err(failure)) => vec![failure.to_string()],
            Err(_) => vec![Failure::TimedOut { at: source.at().to_owned(), after: TEST_MAX }.to_string()],
        }
    }

    /// Returns what the source that `policy` names counted in the longest span that it is asked for; none if that is the
    /// router.
    ///
    /// # Errors
    ///
    /// Why nothing was, in a sentence.
    pub async fn lately(
        &self,
        policy: &JudgementPolicy,
        asked: &Asked,
        now: Timestamp,
    ) -> Result<Option<Measured>, String> {
        let Some(source) = self.open(policy).map_err(|failure| failure.to_string())? else { return Ok(None) };
        match source.read(asked, source.limits().lately(now)).await.map_err(|failure| failure.to_string())? {
            Reading::Complete(measured) | Reading::Partial { measured, .. } => Ok(Some(measured)),
            Reading::Empty { reason } | Reading::Stale { reason } => Err(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::proxy::tests::{asked, stack};
    use super::super::{Limits, NodeMeasured};
    use super::*;
    use schemas::policy::Prometheus;
    use std::collections::BTreeMap;

    /// A source that counts ten requests in every span.
    struct MadeUp;

    #[async_trait::async_trait]
    impl Source for MadeUp {
        async fn read(&self, asked: &Asked, span: Span) -> Result<Reading, Failure> {
            let node = NodeMeasured { requests: 10, ..NodeMeasured::nothing() };
            let stacks = asked.stacks.keys().map(|stack| (*stack, vec![node.clone()])).collect::<BTreeMap<_, _>>();
            Ok(Reading::Complete(Measured { span, stacks }))
        }

        async fn test_source(&self, _: &[Asked], _: Timestamp) -> Result<Vec<String>, Failure> {
            Ok(vec!["made-up has no clock; wind it up".to_owned()])
        }

        fn at(&self) -> &str {
            "made-up"
        }

        fn limits(&self) -> Limits {
            Limits { lag: Duration::from_secs(3), span_max: Duration::from_secs(60) }
        }
    }

    fn made_up(_: &JudgementPolicy) -> Result<Box<dyn Source>, Failure> {
        Ok(Box::new(MadeUp))
    }

    fn named() -> JudgementPolicy {
        JudgementPolicy { prometheus: Some(Prometheus::at("http://127.0.0.1:9")), ..JudgementPolicy::default() }
    }

    #[tokio::test]
    async fn whatever_the_registry_has_under_the_policys_name_is_asked_and_nothing_else() {
        const MADE_UP: Registry = Registry(&[Adapter { name: "prometheus", open: made_up }]);
        let at = |second| Timestamp::from_second(second).unwrap();
        let (policy, asked) = (named(), asked());
        let reading = MADE_UP.read(&policy, &asked, at(0), at(10)).await.unwrap();
        let measured = reading.measured().unwrap();
        assert_eq!((measured.of(stack()).requests, measured.span), (10, Span { from: at(0), to: at(7) }));
        let lately = MADE_UP.lately(&policy, &asked, at(100)).await.unwrap().unwrap();
        assert_eq!(lately.span, Span { from: at(37), to: at(97) });
        assert_eq!(MADE_UP.test_source(&policy, &[], at(0)).await, ["made-up has no clock; wind it up"]);
    }

    #[tokio::test]
    async fn a_name_that_the_registry_does_not_have_is_said_and_the_router_is_never_asked() {
        const EMPTY: Registry = Registry(&[]);
        let said = EMPTY.test_source(&named(), &[], Timestamp::UNIX_EPOCH).await.join("\n");
        assert_eq!(
            said,
            "cannot query the source `prometheus`: this program does not know it; start a newer `ionledger`"
        );
        assert!(EMPTY.open(&JudgementPolicy::default()).unwrap().is_none());
        assert_eq!(
            EMPTY.test_source(&JudgementPolicy::default(), &[], Timestamp::UNIX_EPOCH).await,
            Vec::<String>::new()
        );
    }

    #[test]
    fn every_source_that_a_policy_can_name_is_supported() {
        assert!(SUPPORTED.open(&named()).unwrap().is_some());
    }
}
