//! The checks of what landed in the log: who may have written it, and what follows from it.

use super::*;

impl Checks {
    /// A record landed.
    pub fn landed(&mut self, sent: &Bytes, folded: &Folded, before: &View, after: &View, cloud: &Cloud, now: Ms) {
        let entry = self.model.read(sent);
        let offset = folded.offset;
        let counts = matches!(entry, Entry::Counts(_));
        self.must(2, counts == folded.void.is_none(), || format!("#{offset}: readers disagree whether it counts"));
        if !matches!(entry, Entry::Malformed) {
            let leaf = *self.model.leaves.last().expect("just read");
            self.must(2, leaf == folded.hash, || format!("#{offset}: its bytes are not what was sent"));
        }
        let Entry::Counts(commit) = entry else {
            self.voids += 1;
            self.must(13, before.state() == after.state(), || format!("#{offset} is void and changed something"));
            return;
        };
        self.commits += 1;
        self.counted.insert(commit.command, (commit.id, offset));
        self.check_author(offset, &commit);
        self.check_intent(offset, &commit, now);
        self.hear_of_outage(folded, now);
        self.check_streams(offset, &commit);
        self.model.extend(&commit);
        let mut judged: Option<Judged> = None;
        for (stream, event) in &commit.events {
            let Ok(event) = event else {
                self.alien.insert(stream.clone());
                self.must(13, after.read_only().contains_key(stream), || format!("{stream} is not set aside"));
                continue;
            };
            if let Event::Judgement(judgement::Event::Judged(said)) = event {
                judged = Some(said.clone());
            }
            self.check_event(offset, &commit, stream, event, judged.as_ref(), cloud, now);
            self.hear_word(stream, event, folded.time);
            self.model.apply(stream, event, self.model.time_of(&commit));
        }
    }

    /// 10 and 12: it is by who made it; a worker's has a cause and was made by the one who holds the lease.
    fn check_author(&mut self, offset: Offset, commit: &Counted) {
        let actor = &commit.about.actor;
        let drafted = self.drafted.get(&commit.id).map(|(by, _)| by.clone());
        self.must(12, drafted.as_ref() == Some(actor), || {
            format!("#{offset} is said to be by {actor}, not {drafted:?}")
        });
        self.must(12, !actor.proof.is_empty(), || format!("#{offset}: {actor} proved nothing"));
        if actor.kind != ActorKind::Worker {
            return;
        }
        let lease = commit.events.iter().all(|(stream, _)| stream.starts_with("worker/"));
        let (role, holder) = actor.name.split_once('/').unwrap_or_default();
        let held = self.model.holders.get(role).map(String::as_str) == Some(holder);
        self.must(10, lease || held, || format!("#{offset} counts, and {actor} was deposed"));
        let cause = commit.about.cause.is_some_and(|cause| self.model.commits.contains(&cause));
        self.must(12, lease || cause, || format!("#{offset} by {actor} has no cause in the log"));
    }

    /// 12: what was done without the ledger is recorded by who did it, at the time at which it took effect.
    fn check_intent(&mut self, offset: Offset, commit: &Counted, now: Ms) {
        let Some((intents, actor)) = self.intents.get(&(commit.command, commit.content)).cloned() else { return };
        let (by, at) = (&commit.about.actor, commit.about.effective_at);
        self.must(12, *by == actor, || format!("#{offset} without the ledger was done by {actor}, not by {by}"));
        let true_ = at.is_none_or(|at| intents.iter().any(|intent| intent.at == at));
        self.must(12, true_, || format!("#{offset} took effect at another time than {at:?}"));
        let broken = commit.events.iter().find_map(|(stream, event)| match event {
            Ok(Event::Traffic(traffic::Event::GlassBroken(broken))) => Some((stream, broken)),
            _ => None,
        });
        let Some((id, broken)) =
            broken.and_then(|(stream, broken)| Some((reference_model::deployment_of(stream)?, broken)))
        else {
            return;
        };
        let begun = self.begun.get(&commit.command).copied().unwrap_or_default();
        let moved = self.served_since(&id, broken.to, begun, now);
        self.must(19, broken.moved != Some(true) || moved, || {
            format!(
                "#{offset}: the router is said to have served {} alone without the ledger, and never did",
                broken.to
            )
        });
        self.must(19, at.is_none() || broken.moved == Some(true), || {
            format!("#{offset} is said to be in effect since {at:?}, and it is not known that users were moved")
        });
    }

    fn hear_word(&mut self, stream: &str, event: &Event, time: Timestamp) {
        let Some(id) = reference_model::deployment_of(stream) else { return };
        let word = match event {
            Event::Traffic(traffic::Event::WeightsSet(set)) => !matches!(set.purpose, Purpose::Step { .. }),
            Event::Traffic(traffic::Event::RolledBack(_) | traffic::Event::Retired(_))
            | Event::Rollout(rollout::Event::Started(_) | rollout::Event::Resumed(_)) => true,
            _ => false,
        };
        if word {
            self.words.insert(id, time);
        }
    }

    /// 7: a rollback without the ledger is not undone by what did not know of it: until the ledger has it, other weights
    /// come only from what somebody decided since.
    pub(super) fn check_unsettled(&mut self, routes: &Routes) {
        let id = &routes.deployment;
        let Some(intent) = self.unsettled.get(id).cloned() else { return };
        if routes.weights.sole() == Some(intent.to) {
            return;
        }
        let has = self.counted.contains_key(&intent.command.id);
        let since = self.words.get(id).is_some_and(|at| *at > intent.at);
        self.must(7, has || since, || {
            format!("{id} was rolled back to {} without the ledger, and {:?} undoes it", intent.to, routes.weights)
        });
        self.unsettled.remove(id);
    }

    /// 13: nothing of ours follows what our program does not understand, but for a rollback.
    fn check_streams(&mut self, offset: Offset, commit: &Counted) {
        let rollback = self.drafted.get(&commit.id).is_some_and(|(_, rollback)| *rollback);
        let known = commit.events.iter().all(|(_, event)| event.is_ok());
        let alien = commit.extends.iter().find(|stream| self.alien.contains(*stream));
        self.must(13, rollback || !known || alien.is_none(), || format!("#{offset} goes on over what is unknown"));
    }

    #[allow(clippy::too_many_arguments)]
    fn check_event(
        &mut self,
        offset: Offset,
        commit: &Counted,
        stream: &str,
        event: &Event,
        judged: Option<&Judged>,
        cloud: &Cloud,
        now: Ms,
    ) {
        match (event, reference_model::deployment_of(stream)) {
            (Event::Release(release::Event::Recorded(recorded)), _) => {
                let service = stream.trim_start_matches("service/").parse().expect("a service's stream");
                let known = self.model.services.get(&service).and_then(|s| s.releases.get(&recorded.version));
                let same = known.is_none_or(|known| *known == reference_model::content(recorded));
                self.must(11, same, || format!("#{offset}: {stream} {} has other content", recorded.version));
            }
            (Event::Traffic(traffic::Event::WeightsSet(set)), Some(id)) => {
                self.check_weights(offset, &id, set);
                if let (Purpose::Asked, Some(stack)) = (&set.purpose, set.weights.sole()) {
                    self.check_hold(offset, &id, commit, stack);
                }
                self.check_fence(offset, &id, commit, "sets weights");
            }
            (Event::Traffic(traffic::Event::RolledBack(back)), Some(id)) => {
                self.check_rollback(offset, &id, commit.id, back);
                self.check_held(offset, &id, commit);
            }
            (Event::Traffic(traffic::Event::DriftSeen(drift)), Some(id)) => self.check_drift(offset, &id, &drift.seen),
            (Event::Traffic(traffic::Event::WeightsApplied(_)), Some(id)) => {
                self.applied_at.insert(id, now);
            }
            (Event::Stack(stack::Event::Requested(requested)), Some(id)) => self.check_named(offset, &id, requested),
            (Event::Rollout(rollout::Event::Requested(requested)), Some(id)) => {
                self.check_request(offset, &id, requested);
            }
            (Event::Rollout(rollout::Event::Started(started)), Some(id)) => {
                self.rollouts += 1;
                self.check_begins(offset, &id, commit, started);
                self.check_fence(offset, &id, commit, "starts a rollout");
            }
            (Event::Rollout(rollout::Event::StepTaken(taken)), Some(id)) => {
                self.check_no_rollback_waits(offset, &id);
                self.check_distance(offset, &id, taken, self.model.time);
                self.check_step(offset, &id, taken, judged, cloud, now);
            }
            _ => {}
        }
    }

    /// 7: what is rolled back is not rolled back again, unless what it went to was dead by then, and the fence rises.
    fn check_rollback(&mut self, offset: Offset, id: &DeploymentId, commit: CommitId, back: &traffic::RolledBack) {
        self.rollbacks += 1;
        let of = self.model.deployments.get(id);
        let again = of.is_some_and(|of| of.purpose == Some(Purpose::Rollback));
        let live = of.is_some_and(|of| of.rollout.as_ref().is_some_and(|rollout| rollout.live));
        let fence = of.map_or(Fence(0), |of| of.fence);
        let further = self.left_the_dead.contains(&commit);
        let gone_past = !live && of.is_some_and(|of| of.gone_past.contains(&back.to));
        self.must(7, !again || live || further, || format!("#{offset}: {id} was rolled back and is again"));
        self.must(16, !gone_past, || format!("#{offset}: {id} goes back to {}, which a rollback went past", back.to));
        self.must(7, back.fence > fence, || format!("#{offset}: a rollback does not raise the fence"));
    }

    /// 3 and 5: all traffic, over stacks that can take it, and not too many of them.
    fn check_weights(&mut self, offset: Offset, id: &DeploymentId, set: &traffic::WeightsSet) {
        let Some(of) = self.model.deployments.get(id) else {
            return self.fail(3, format!("#{offset}: {id} has weights and no stacks"));
        };
        let (max, sum): (u16, u32) = (
            self.model.services.get(&id.service).map_or(2, |service| service.serving_max),
            set.weights.iter().map(|(_, weight)| u32::from(weight.basis_points())).sum(),
        );
        let back = matches!(set.purpose, Purpose::Rollback | Purpose::Abort { .. });
        let unfit = set.weights.iter().find_map(|(stack, weight)| {
            let before = of.set.as_ref().map_or(Weight::ZERO, |set| set.of(stack));
            let phase = of.stacks.get(&stack).map(|stack| stack.phase);
            let fit = phase == Some(Phase::Ready) || (phase == Some(Phase::Unhealthy) && (back || weight <= before));
            (!fit).then(|| format!("#{offset}: {id} gives {weight} to {stack}, which is {phase:?}"))
        });
        let many = set.weights.len() > usize::from(max);
        self.must(3, sum == 10_000, || format!("#{offset}: {id} sets {sum} basis points"));
        self.must(5, !many, || format!("#{offset}: {id} serves {} versions, {max} are allowed", set.weights.len()));
        if let Some(unfit) = unfit {
            self.fail(3, unfit);
        }
    }

    /// 7: what was asked for under an older fence has no effect.
    fn check_fence(&mut self, offset: Offset, id: &DeploymentId, commit: &Counted, does: &str) {
        let Some((asked, command)) = self.asked.get(&(commit.command, commit.content)) else { return };
        if matches!(command, Command::Rollback(_)) {
            return;
        }
        let (asked, fence) = (*asked, self.model.deployments.get(id).map_or(Fence(0), |of| of.fence));
        self.must(7, asked >= fence, || format!("#{offset} {does} for {id} under fence {asked}, it is {fence}"));
    }
}
