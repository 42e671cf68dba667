use http::StatusCode;
use serde_json::Value;

use crate::api::meta::ObjectExt;
use crate::api::status::ApiError;

use super::super::call::Call;
use super::write::{self, Attempt, Step};
use super::{Answer, Sent, create};

/// Kinds that a PUT also creates, as upstream's strategies say: (group, plural).
const CREATED_BY_UPDATE: &[(&str, &str)] = &[
    ("", "endpoints"),
    ("", "events"),
    ("", "limitranges"),
    ("", "resourcequotas"),
    ("", "services"),
    ("coordination.k8s.io", "leases"),
    ("events.k8s.io", "events"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
];

/// Replaces an object, or what a subresource shows of it, by the body.
pub async fn update(call: &Call<'_>, sent: &Sent<'_>) -> Answer {
    call.check_single()?;
    let dry_run = call.params.dry_run()?;
    let (object, mut warnings) = call.decode(sent)?;
    if may_create(call) && call.engine.store.get(&call.key()).await?.is_none() {
        return create_by_update(call, object, dry_run, warnings).await;
    }
    let mut attempt = Attempt::begin(call, call.key(), dry_run).await?;
    loop {
        let old = attempt.standing(call)?;
        let prepared = write::prepare_update(call, &old, object.clone(), dry_run).await?;
        if let Some(outcome) = attempt.commit(call, settle(&old, prepared.object)).await? {
            if !dry_run {
                prepared.reserved.commit();
            }
            warnings.extend(prepared.warnings);
            return write::answer(call, StatusCode::OK, &outcome, &warnings);
        }
    }
}

fn may_create(call: &Call<'_>) -> bool {
    let (group, plural) = (call.resource.group.as_ref(), call.resource.plural.as_ref());
    call.info.subresource.is_empty() && CREATED_BY_UPDATE.contains(&(group, plural))
}

async fn create_by_update(
    call: &Call<'_>,
    object: Value,
    dry_run: bool,
    mut warnings: Vec<String>,
) -> Answer {
    if object.name() != call.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object.name(),
            call.info.name
        )));
    }
    if !object.uid().is_empty() || !matches!(object.resource_version(), "" | "0") {
        return Err(call.not_found());
    }
    let (outcome, said) = create::create_object(call, object, dry_run).await?;
    warnings.extend(said);
    write::answer(call, StatusCode::CREATED, &outcome, &warnings)
}

/// Put the new state, or, if an object that is being deleted has lost its last finalizer, remove it.
pub fn settle(old: &Value, new: Value) -> Step {
    if write::is_over(old, &new) { Step::Remove(new) } else { Step::Put(new) }
}
