//! What an action came to, and what follows of it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use super::action::Key;
use super::ops::{Failure, Outcome};
use super::state::{BackoffEntry, CRASH, Image, PULL, SETUP, Verdict, later, volume_of};
use super::worker::Worker;
use crate::kubelet::context::reference;
use crate::kubelet::probe::{self, ProbeKind};
use crate::kubelet::spec;

/// Drivers that want to be asked for their volumes again and again are asked as often as upstream looks at a Pod.
const REPUBLISH: SignedDuration = SignedDuration::from_secs(60);

/// What a worker makes of what its actions came to.
impl Worker {
    pub(super) fn take(&mut self, key: Key, outcome: Outcome) {
        let now = Timestamp::now();
        match outcome.failed() {
            // Whoever ends has no use for it, and what it refers to may go before it does.
            Some(_) if key == Key::Refresh && self.is_ending() => {}
            Some(error) => {
                self.say_failed(&key, error);
                self.memory.fail(key, error.to_owned(), now);
            }
            None => drop(self.memory.troubles.remove(&key)),
        }
        match outcome {
            Outcome::Volumes(Ok(volumes)) => {
                self.memory.volumes = Arc::new(volumes);
                self.memory.volumes_ready = true;
                self.schedule_refresh();
            }
            Outcome::Pulled { container, result } => self.pulled(&container, result, now),
            Outcome::Started { container, result } => self.started(&container, result, now),
            Outcome::PostStarted { container, id, result } => self.post_started(&container, id, result),
            Outcome::PreStopped { container, id, result } => {
                self.memory.pre_stopped.insert(id);
                if let Err(why) = result {
                    let about = reference(&self.pod, Some(&container));
                    self.context.events.warning(
                        about,
                        "FailedPreStopHook",
                        format!("PreStopHook failed: {why}"),
                    );
                }
            }
            Outcome::Stopped { id, result } => {
                self.stale = true;
                if result.is_ok() {
                    self.memory.condemned.remove(&id);
                }
            }
            Outcome::Resized { id, result: Ok(resources) } => {
                self.memory.resized.insert(id, resources);
            }
            Outcome::SandboxStopped { id, result: Ok(()) } => {
                self.memory.stopped_sandboxes.insert(id);
                self.stale = true;
            }
            Outcome::Removed { id, result: Ok(()) } => {
                self.memory.removed.insert(id);
                self.stale = true;
            }
            Outcome::Released(Ok(())) => self.memory.released = true,
            Outcome::Finished(Ok(())) => self.memory.finished = true,
            Outcome::Cleaned(Ok(())) => self.done = true,
            Outcome::Reported(status, Ok(pod)) => {
                self.memory.reported = Some(*status);
                self.memory.reported_when = Some(now);
                if let Some(mut pod) = pod {
                    pod.metadata.managed_fields = None;
                    self.memory.reported_at.clone_from(&pod.metadata.resource_version);
                    self.see(Arc::from(pod));
                } else {
                    self.memory.reported_at.clone_from(&self.pod.metadata.resource_version);
                }
                self.hold_back();
            }
            Outcome::Refreshed(Ok(())) => self.schedule_refresh(),
            Outcome::Refreshed(Err(_)) => {
                let again = self.memory.troubles.get(&Key::Refresh).map(|trouble| trouble.retry_at);
                self.refresh_at = if self.outdated { Some(now) } else { again };
            }
            Outcome::Sandbox(_)
            | Outcome::SandboxStopped { .. }
            | Outcome::Removed { .. }
            | Outcome::Cleaned(_) => self.stale = true,
            Outcome::Volumes(_)
            | Outcome::Resized { .. }
            | Outcome::Released(_)
            | Outcome::Finished(_)
            | Outcome::Reported(..) => {}
        }
    }

    /// Tells about an action that failed: people in an Event where they would look for it, the log otherwise.
    fn say_failed(&self, key: &Key, error: &str) {
        let event = match key {
            Key::Volumes | Key::Refresh => Some(("FailedMount", error.to_owned())),
            Key::Sandbox => {
                Some(("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}")))
            }
            Key::Stop(..) => Some(("FailedKillPod", format!("error killing pod: {error}"))),
            Key::Resize(_) => Some(("ResizeError", error.to_owned())),
            _ => None,
        };
        if let Some((reason, text)) = event {
            self.context.events.warning(reference(&self.pod, None), reason, text);
        }
        tracing::warn!(error, action = %key, pod = self.pod.metadata.name, "not done yet");
    }

    /// What was given up before it came to anything.
    pub(super) fn given_up(&mut self, key: &Key) {
        match key {
            Key::PreStop(id) => drop(self.memory.pre_stopped.insert(id.clone())),
            Key::PostStart(id) => drop(self.memory.hooked.remove(id)),
            _ => {}
        }
    }

    fn schedule_refresh(&mut self) {
        let tokens = self.tokens.try_lock().ok().and_then(|tokens| tokens.refresh_at());
        let asks = self.memory.volumes.values().any(|volume| volume.republish);
        let again = asks.then(|| later(Timestamp::now(), REPUBLISH));
        let outdated = self.outdated.then(Timestamp::now);
        self.refresh_at = tokens.into_iter().chain(again).chain(outdated).min();
    }

    fn pulled(&mut self, container: &str, result: Result<String, Failure>, now: Timestamp) {
        let slot = self.memory.slot_mut(container);
        slot.image = match result {
            Ok(image) => Image::Ready(image),
            Err(failure) => {
                let earlier = match &slot.image {
                    Image::Failed(trouble) => Some(trouble),
                    _ => None,
                };
                Image::Failed(BackoffEntry::after(earlier, PULL, failure.reason, failure.message, now))
            }
        };
    }

    fn started(&mut self, container: &str, result: Result<String, Failure>, now: Timestamp) {
        self.stale = true;
        let hook = find(&self.pod, container)
            .is_some_and(|spec| spec.lifecycle.as_ref().is_some_and(|hooks| hooks.post_start.is_some()));
        let slot = self.memory.slot_mut(container);
        match result {
            Ok(id) => {
                slot.trouble = None;
                if hook {
                    self.memory.hooked.insert(id);
                }
            }
            Err(failure) => {
                let backoff = if failure.reason == "RunContainerError" { CRASH } else { SETUP };
                let earlier = slot.trouble.as_ref();
                slot.trouble =
                    Some(BackoffEntry::after(earlier, backoff, failure.reason, failure.message, now));
            }
        }
    }

    fn post_started(&mut self, container: &str, id: String, result: Result<(), String>) {
        self.memory.hooked.remove(&id);
        // Probing begins now.
        self.stale = true;
        let Err(why) = result else { return };
        let about = reference(&self.pod, Some(container));
        self.context.events.warning(about, "FailedPostStartHook", format!("PostStartHook failed: {why}"));
        let message = "FailedPostStartHook".to_owned();
        self.memory.condemned.insert(id, Verdict { message, grace: None });
    }

    /// A failed pull was seen as ErrImagePull; from now on it waits.
    fn hold_back(&mut self) {
        let names: Vec<String> = self.memory.slots.keys().cloned().collect();
        for name in names {
            let Image::Failed(trouble) = &mut self.memory.slot_mut(&name).image else { continue };
            if trouble.reason != "ErrImagePull" {
                continue;
            }
            let volume = volume_of(&name);
            let image = match volume {
                Some(volume) => mounted(&self.pod, volume),
                None => find(&self.pod, &name).and_then(|spec| spec.image.clone()),
            }
            .unwrap_or_default();
            let text = format!("Back-off pulling image \"{image}\"");
            trouble.message = format!("{text}: ErrImagePull: {}", trouble.message);
            "ImagePullBackOff".clone_into(&mut trouble.reason);
            let about = || reference(&self.pod, Some(name.as_str()).filter(|_| volume.is_none()));
            self.context.events.normal(about(), "BackOff", text);
            self.context.events.warning(about(), "Failed", "Error: ImagePullBackOff");
        }
    }

    pub(super) fn judge(&mut self, verdict: probe::Verdict) {
        let probe::Verdict { id, container, kind, healthy } = verdict;
        match (kind, healthy) {
            (ProbeKind::Startup, true) => {
                self.memory.started.insert(id);
                self.stale = true;
            }
            (ProbeKind::Readiness, true) => {
                self.memory.ready.insert(id);
            }
            (ProbeKind::Readiness, false) => {
                self.memory.ready.remove(&id);
            }
            (ProbeKind::Liveness, true) => {}
            (kind, false) => {
                let spec = find(&self.pod, &container);
                let probe = spec.and_then(|spec| match kind {
                    ProbeKind::Startup => spec.startup_probe.as_ref(),
                    _ => spec.liveness_probe.as_ref(),
                });
                let grace = probe.and_then(|probe| probe.termination_grace_period_seconds);
                let what = kind.name().to_lowercase();
                let message = format!("Container {container} failed {what} probe, will be restarted");
                self.memory.ready.remove(&id);
                self.memory.condemned.insert(id, Verdict { message, grace });
            }
        }
    }
}

/// The image that a volume shows.
fn mounted(pod: &Pod, name: &str) -> Option<String> {
    let mut all = spec(pod).volumes.iter().flatten();
    all.find(|volume| volume.name == name)?.image.as_ref()?.reference.clone()
}

fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Spec> {
    let spec = spec(pod);
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .find(|container| container.name == name)
}
