//! Explanations of what people name: a service, a record's offset, a commit or the beginning of its id, a version.

use std::collections::BTreeSet;

use ledger::State;
use ledger::deployment::Stack;
use ledger::view::Decoded;
use schemas::text::known_instead;
use schemas::{CommitId, DeploymentId, EnvironmentName, Offset, ServiceName, StackId, StackName, Version};

use super::collect::Collect;
use super::{Error, HistoryQuery, Reader};
use crate::answer::{Explanation, Happened};
use crate::moment::Moment;

/// How short the beginning of a commit's id may be, in hexadecimal digits.
const PREFIX_DIGITS_MIN: usize = 4;

/// How many commits with the same beginning an error lists.
const LISTED_MAX: usize = 5;

/// The beginning of an id, in hexadecimal digits without hyphens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdPrefix(String);

impl IdPrefix {
    /// Reads the beginning of an id, with or without hyphens.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
        let fits = (PREFIX_DIGITS_MIN..=32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then_some(Self(digits))
    }

    /// Says whether `commit` begins so.
    pub(crate) fn begins(&self, commit: CommitId) -> bool {
        commit.0.as_simple().to_string().starts_with(&self.0)
    }

    /// Returns the whole bytes it consists of.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let pairs = self.0.as_bytes().chunks_exact(2);
        pairs.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    }
}

impl Reader {
    /// Returns an explanation of what `what` names: a service's rollout in `environment`; of a record's offset, a commit or the
    /// beginning of its id what led to it; of a version its rollout if that is the last, else what led to its stack or its
    /// release. A number is an offset, and a name that a service has is that service's; with `service` it is a version.
    ///
    /// # Errors
    ///
    /// [`Error::Nothing`] with what was meant, [`Error::Several`] with what it may be, and what keeps the log from being
    /// read.
    pub async fn explain_named(
        &self,
        what: &str,
        service: Option<&ServiceName>,
        environment: &EnvironmentName,
        moment: Moment,
    ) -> Result<Explanation, Error> {
        if service.is_none() {
            if let Some(offset) = offset(what)
                && offset < *self.log.end().borrow()
            {
                return self.explain_commit(self.commit_at(offset).await?).await;
            }
            if let Ok(commit) = what.parse::<CommitId>() {
                return self.explain_commit(commit).await;
            }
        }
        let state = self.state_at(Moment::Now).await?.state;
        if service.is_none()
            && let Ok(service) = what.parse::<ServiceName>()
            && state.services.contains_key(&service)
        {
            return self.explain(&DeploymentId { environment: environment.clone(), service }, moment).await;
        }
        if let Some(explanation) = self.explain_version(&state, what, service, environment, moment).await? {
            return Ok(explanation);
        }
        match IdPrefix::read(what).filter(|_| service.is_none()) {
            Some(prefix) => match self.commits_with(&prefix).await?[..] {
                [] => Err(self.nothing(&state, what, service)),
                [commit] => self.explain_commit(commit).await,
                ref several => Err(Error::several(what, several.iter().map(ToString::to_string))),
            },
            None => Err(self.nothing(&state, what, service)),
        }
    }

    /// Returns the explanation of a version, if there is a release of it.
    async fn explain_version(
        &self,
        state: &State,
        what: &str,
        service: Option<&ServiceName>,
        environment: &EnvironmentName,
        moment: Moment,
    ) -> Result<Option<Explanation>, Error> {
        let Ok(name) = what.parse::<StackName>() else { return Ok(None) };
        let version = name.version.clone();
        let asked = |name: &ServiceName| service.is_none_or(|service| service == name);
        let with_it =
            state.services.iter().filter(|(name, found)| asked(name) && found.releases.contains_key(&version));
        let (service, release) =
            match with_it.map(|(name, found)| (name, &found.releases[&version])).collect::<Vec<_>>()[..] {
                [] => return Ok(None),
                [found] => found,
                ref several => {
                    let names = several.iter().map(|(service, _)| format!("`ionledger explain {service} {name}`"));
                    return Err(Error::several(what, names));
                }
            };
        let deployment = DeploymentId { environment: environment.clone(), service: service.clone() };
        let explained = self.explain(&deployment, moment).await?;
        if explained.rollout.as_ref().is_some_and(|rollout| rollout.canary_name().as_ref() == Some(&name)) {
            return Ok(Some(explained));
        }
        let stack = match state.deployment(&deployment).map(|found| found.stack_named(&name)) {
            Some(Err(stacks)) => {
                let each = stacks.iter().map(|stack| format!("`ionledger explain {service} {stack}`"));
                return Err(Error::several(what, each));
            }
            Some(Ok(Some((stack, _)))) => Some(stack),
            Some(Ok(None)) => being_taken_down(state, &deployment, &name),
            None => None,
        };
        let commit = match stack {
            Some(stack) => CommitId(stack.0),
            None => match self.asked_for(&deployment, &name).await? {
                Some(commit) => commit,
                None if name.is_first() => release.commit,
                None => return Ok(None),
            },
        };
        self.explain_commit(commit).await.map(Some)
    }

    /// Returns the last commit that asked for a stack of this name, by the history: the stack may be gone.
    async fn asked_for(&self, deployment: &DeploymentId, name: &StackName) -> Result<Option<CommitId>, Error> {
        let DeploymentId { environment, service } = deployment.clone();
        let query = HistoryQuery { service: Some(service), environment: Some(environment), ..HistoryQuery::default() };
        let is_it = |happened: &Happened| {
            let number = happened.data["number"].as_u64().unwrap_or(1);
            happened.kind == "stack.requested"
                && happened.data["version"] == name.version.as_str()
                && number == u64::from(name.number)
        };
        let entries = self.history(&query).await?.entries;
        let found = entries.into_iter().find(|entry| entry.void.is_none() && entry.events.iter().any(is_it));
        Ok(found.and_then(|entry| entry.commit))
    }

    /// Returns the commit whose record stands at `offset`.
    async fn commit_at(&self, offset: Offset) -> Result<CommitId, Error> {
        let records = self.log.read(offset, 1).await?;
        let record = records.first().ok_or(Error::Empty)?;
        Decoded::of(&record.bytes).envelope().map(|envelope| envelope.id).ok_or(Error::NoCommitAt(offset))
    }

    /// Returns the commits whose ids begin so, a few if there are many.
    async fn commits_with(&self, prefix: &IdPrefix) -> Result<Vec<CommitId>, Error> {
        if let Some(rows) = self.rows().await
            && let Some(commits) = rows.commits_with(prefix, LISTED_MAX + 1)
        {
            return Ok(commits);
        }
        let mut collected = self.collect(Collect::new(Moment::Now).with_places()).await?;
        let commits: BTreeSet<CommitId> =
            collected.places().into_keys().filter(|commit| prefix.begins(*commit)).collect();
        Ok(commits.into_iter().take(LISTED_MAX + 1).collect())
    }

    fn nothing(&self, state: &State, what: &str, service: Option<&ServiceName>) -> Error {
        let end = *self.log.end().borrow();
        if let (Some(asked), None, Some(last)) = (offset(what), service, end.0.checked_sub(1)) {
            return Error::NoOffset { asked, records: end.0, last };
        }
        let deployments = state.deployments.iter().filter(|(id, _)| service == Some(&id.service));
        let stacks = deployments.flat_map(|(_, found)| found.stacks.values()).map(Stack::name);
        let renewed: Vec<String> = stacks.filter(|name| !name.is_first()).map(|name| name.to_string()).collect();
        let known: Vec<&str> = match service {
            Some(service) => {
                let found = state.service(service).into_iter();
                let versions = found.flat_map(|found| found.releases.keys().map(Version::as_str));
                versions.chain(renewed.iter().map(String::as_str)).collect()
            }
            None => {
                let versions = state.services.values().flat_map(|found| found.releases.keys().map(Version::as_str));
                let all: BTreeSet<&str> = state.services.keys().map(ServiceName::as_str).chain(versions).collect();
                all.into_iter().collect()
            }
        };
        let of = service.map(|service| format!(" of {service}")).unwrap_or_default();
        let what: String = what.chars().take(60).flat_map(char::escape_default).collect();
        let instead = match known_instead(&what, &known) {
            instead if instead.is_empty() => "`ionledger history` shows what there is".to_owned(),
            instead => instead,
        };
        Error::Nothing { what: format!("`{what}`{of}"), instead }
    }
}

/// Returns the newest stack that is being taken down and has this name.
fn being_taken_down(state: &State, deployment: &DeploymentId, name: &StackName) -> Option<StackId> {
    let stacks = state.deployment(deployment)?.stacks.iter();
    stacks.filter(|(_, stack)| stack.name() == *name).map(|(id, _)| *id).max()
}

/// Reads a number as the offset it is: an id that consists of digits begins with a zero.
fn offset(what: &str) -> Option<Offset> {
    let plain = what == "0" || !what.starts_with('0');
    let digits = !what.is_empty() && what.bytes().all(|byte| byte.is_ascii_digit());
    what.parse().ok().map(Offset).filter(|_| plain && digits)
}

impl Error {
    fn several(what: &str, found: impl Iterator<Item = String>) -> Self {
        let mut found: Vec<String> = found.collect();
        let more = if found.len() > LISTED_MAX { " and others" } else { "" };
        found.truncate(LISTED_MAX);
        Error::Several { what: what.to_owned(), found: found.join(", ") + more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_is_read_with_and_without_hyphens() {
        let commit: CommitId = "0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03".parse().unwrap();
        for text in ["0193", "0193a", "0193A6F0", "0193a6f00c41", "0193a6f0-0c4", &commit.to_string()] {
            assert!(IdPrefix::read(text).unwrap().begins(commit), "{text}");
        }
        assert!(!IdPrefix::read("0193a6f1").unwrap().begins(commit));
        assert_eq!(IdPrefix::read("0193a").unwrap().bytes(), [0x01, 0x93]);
        for text in ["", "019", "xyz1", "1.2.3", "0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d031"] {
            assert_eq!(IdPrefix::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_is_an_offset() {
        assert_eq!([offset("52"), offset("0")], [Some(Offset(52)), Some(Offset(0))]);
        for text in ["", "052", "+5", "5.2", "99999999999999999999999"] {
            assert_eq!(offset(text), None, "{text}");
        }
    }
}
