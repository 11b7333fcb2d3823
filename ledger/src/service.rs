//! A service: its declaration and its releases. A release is immutable.

use std::collections::BTreeMap;

use schemas::command;
use schemas::run::EnvValue;
use schemas::service::Definition;
use schemas::{CommitId, ServiceName, StackName, StreamVersion, Timestamp, Version, release, service};
use serde::{Deserialize, Serialize};

use crate::at::At;
use crate::decision::Rejection;

/// A service after its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What its team declared last.
    pub definition: Option<Definition>,
    /// Its releases.
    #[serde(skip)]
    pub releases: BTreeMap<Version, Release>,
}

/// A release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// What was recorded.
    pub recorded: release::Recorded,
    /// When.
    pub at: Timestamp,
    /// By which commit.
    pub commit: CommitId,
    /// The service's stream with it. Of two releases the one that was recorded later is the newer, whatever their versions
    /// are called.
    pub place: StreamVersion,
}

impl Service {
    /// Says whether the release of `version` was recorded before that of `other`; no if either was never recorded.
    pub fn is_older(&self, version: &Version, other: &Version) -> bool {
        let place = |version| self.releases.get(version).map(|release| release.place);
        place(version).zip(place(other)).is_some_and(|(place, other)| place < other)
    }

    /// Says whether a stack is older than another: its release is, or of one release its number is lower.
    pub fn is_older_stack(&self, stack: &StackName, other: &StackName) -> bool {
        let renewed = stack.version == other.version && stack.number < other.number;
        renewed || self.is_older(&stack.version, &other.version)
    }

    /// Says whether the policy lets a rollback go past a target that does not pass its check.
    pub fn goes_past(&self) -> bool {
        self.definition.as_ref().is_none_or(|definition| definition.policy.rollout.rollback_past_target)
    }

    /// Returns the release that was recorded last.
    pub fn newest(&self) -> Option<&Version> {
        self.releases.iter().max_by_key(|(_, release)| release.place).map(|(version, _)| version)
    }
}

/// Returns the service after a declaration.
pub fn evolve(mut service: Service, event: &service::Event) -> Service {
    match event {
        service::Event::Applied(applied) => service.definition = Some(applied.definition.clone()),
    }
    service
}

/// Returns the service after a release.
pub fn evolve_release(mut service: Service, event: &release::Event, at: &At) -> Service {
    match event {
        release::Event::Recorded(recorded) => {
            let release = Release { recorded: recorded.clone(), at: at.time, commit: at.commit, place: at.version };
            service.releases.insert(recorded.version.clone(), release);
        }
    }
    service
}

/// Returns the events that declare a service: none if it is declared so already.
///
/// # Errors
///
/// [`Rejection::Invalid`] names what is wrong in the declaration.
pub fn decide_apply(service: Option<&Service>, definition: &Definition) -> Result<Vec<schemas::Event>, Rejection> {
    definition.validate().map_err(Rejection::Invalid)?;
    if service.and_then(|service| service.definition.as_ref()) == Some(definition) {
        return Ok(vec![]);
    }
    Ok(vec![service::Applied { definition: definition.clone() }.into()])
}

/// Returns the events that record a release: none if the same one is recorded already. How it is run is its content
/// too: after the service was declared with another run spec, the same artifact is another release.
///
/// # Errors
///
/// [`Rejection::Unknown`] without a declaration, [`Rejection::Immutable`] if the version is recorded with another artifact
/// or run spec, [`Rejection::Invalid`] for arguments, variables or texts that cannot be.
pub fn decide_release(service: &Service, asked: &command::Release) -> Result<Vec<schemas::Event>, Rejection> {
    let command::Release { service: name, version, artifact, args, env, source, fixes } = asked;
    let definition = service.definition.as_ref().ok_or_else(|| Rejection::unknown_service(name, []))?;
    let mut run = definition.run.clone();
    if let Some(args) = args {
        run.args.clone_from(args);
    }
    run.env.extend(env.iter().map(|(name, value): (&String, &EnvValue)| (name.clone(), value.clone())));
    run.validate().map_err(Rejection::invalid)?;
    artifact.validate().map_err(Rejection::invalid)?;
    source.validate().map_err(Rejection::invalid)?;
    if let Some(known) = service.releases.get(version) {
        let what = if known.recorded.artifact.sha256 != artifact.sha256 {
            "artifact"
        } else if known.recorded.run != run {
            "run spec"
        } else {
            return Ok(vec![]);
        };
        return Err(Rejection::Immutable { service: name.clone(), version: version.clone(), what });
    }
    if let Some(fixed) = fixes {
        check_fixed(name, service, version, fixed)?;
    }
    let (source, fixes) = (source.clone().without_blanks(), fixes.clone());
    let recorded = release::Recorded { version: version.clone(), artifact: artifact.clone(), run, source, fixes };
    Ok(vec![recorded.into()])
}

/// Checks that `version` may say that it fixes `fixed`.
fn check_fixed(name: &ServiceName, service: &Service, version: &Version, fixed: &Version) -> Result<(), Rejection> {
    if fixed == version {
        return Err(Rejection::Invalid(format!("{name} {version} cannot fix itself; name the version that it fixes")));
    }
    match service.releases.contains_key(fixed) {
        true => Ok(()),
        false => Err(Rejection::unknown_release(name, fixed, service.releases.keys())),
    }
}

#[cfg(test)]
mod tests {
    use crate::kit::*;

    #[test]
    fn a_release_is_older_if_it_was_recorded_earlier_whatever_its_version_says() {
        let mut world = World::empty();
        world.ask(apply(definition()));
        [V3, V1, V2].into_iter().for_each(|version| drop(world.ask(release(version))));
        let service = world.state.service(&service()).unwrap();
        let is_older = |a, b| service.is_older(&version(a), &version(b));
        assert!(is_older(V3, V1) && is_older(V1, V2) && is_older(V3, V2));
        assert!(!is_older(V1, V3) && !is_older(V1, V1));
        assert!(!is_older(V1, "9.9.9") && !is_older("9.9.9", V1), "what was never recorded is neither");
    }
}
