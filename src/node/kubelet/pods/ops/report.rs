//! Reports a Pod's status.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use super::{Job, Outcome};
use crate::kubelet::statics::{is_static, with_mirror};

/// Fields of the status that other components own.
const FOREIGN: &[&str] = &["nominatedNodeName", "resourceClaimStatuses"];

impl Job {
    /// Sends the whole status; fields that were there and are not any more are taken away.
    pub async fn report(self, status: PodStatus) -> Outcome {
        let result = self.patch_status(&status).await;
        Outcome::Reported(Box::new(status), result)
    }

    /// The Pod as the API server has it after that; `None` when it has no such Pod, or does not show a static one yet.
    async fn patch_status(&self, status: &PodStatus) -> Result<Option<Box<Pod>>, String> {
        let stands_for = is_static(&self.pod);
        let shown = match stands_for {
            true => self.context.mirrors.showing(&self.pod),
            false => Some(self.pod.clone()),
        };
        let Some(shown) = shown else { return Ok(None) };
        let uid = shown.metadata.uid.as_deref().unwrap_or_default();
        let body = status_patch(uid, status, shown.status.as_ref());
        let patched =
            self.api().patch_status(self.name(), &PatchParams::default(), &Patch::Merge(&body)).await;
        match patched {
            Ok(pod) if stands_for => Ok(Some(Box::new(with_mirror(&self.pod, Some(&pod))))),
            Ok(pod) => Ok(Some(Box::new(pod))),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                tracing::debug!(pod = self.name(), %status, "the Pod is not there any more");
                Ok(None)
            }
            Err(error) => Err(brief(error)),
        }
    }

    /// The last status, then the end: the Pod may be forgotten by everybody.
    pub async fn finish(self, status: PodStatus) -> Outcome {
        if let Err(error) = self.patch_status(&status).await {
            return Outcome::Finished(Err(error));
        }
        let preconditions = Preconditions { uid: self.pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..Default::default()
        };
        match self.api().delete(self.name(), &params).await {
            Ok(_) => Outcome::Finished(Ok(())),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Outcome::Finished(Ok(())),
            Err(error) => Outcome::Finished(Err(brief(error))),
        }
    }
}

/// The API server's message without the Status around it.
fn brief(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

/// Whether what the API server says of a Pod is something else than `ours`; times of conditions do not count.
pub fn differs(theirs: Option<&PodStatus>, ours: &PodStatus) -> bool {
    let plain = |status: &PodStatus| {
        let mut status = status.clone();
        let conditions = status.conditions.get_or_insert_default();
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        for condition in conditions {
            condition.last_transition_time = None;
            condition.last_probe_time = None;
            condition.observed_generation = None;
        }
        let mut value = serde_json::to_value(status).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.retain(|key, _| !FOREIGN.contains(&key.as_str()) && key != "observedGeneration");
        }
        value
    };
    theirs.is_none_or(|theirs| plain(theirs) != plain(ours))
}

/// The merge patch that makes the stored status `status`.
fn status_patch(uid: &str, status: &PodStatus, before: Option<&PodStatus>) -> Value {
    let mut new = serde_json::to_value(status).unwrap_or_default();
    let old = before.and_then(|before| serde_json::to_value(before).ok()).unwrap_or_default();
    // Fields other components own stay as they are.
    if let (Some(new), Some(old)) = (new.as_object_mut(), old.as_object()) {
        for key in old.keys().filter(|key| !FOREIGN.contains(&key.as_str())) {
            new.entry(key.clone()).or_insert(Value::Null);
        }
    }
    json!({ "metadata": { "uid": uid }, "status": new })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodCondition;

    #[test]
    fn a_patch_takes_away_what_is_gone() {
        let before =
            PodStatus { reason: Some("x".into()), pod_ip: Some("1.2.3.4".into()), ..Default::default() };
        let now =
            PodStatus { phase: Some("Running".into()), pod_ip: Some("1.2.3.5".into()), ..Default::default() };
        let patch = status_patch("u", &now, Some(&before));
        assert_eq!(
            patch,
            json!({"metadata": {"uid": "u"},
                "status": {"phase": "Running", "podIP": "1.2.3.5", "reason": null}})
        );
    }

    #[test]
    fn what_others_wrote_into_our_fields_is_a_difference() {
        let status = |ready: &str, nominated: Option<&str>| PodStatus {
            conditions: Some(vec![PodCondition {
                type_: "Ready".into(),
                status: ready.into(),
                ..Default::default()
            }]),
            nominated_node_name: nominated.map(str::to_owned),
            ..Default::default()
        };
        assert!(differs(Some(&status("False", None)), &status("True", None)));
        assert!(!differs(Some(&status("True", Some("n"))), &status("True", None)));
        assert!(differs(None, &status("True", None)));
    }
}
