//! Nothing is created in a namespace that is missing or going away.

use super::{Attributes, Context, Operation, Plugin};
use api::meta::ObjectExt;
use api::status::ApiError;

/// Namespaces that stay.
const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];

/// Nothing is created in a namespace that is missing or going away, and some namespaces never go.
pub(super) struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    /// In upstream this runs with the mutating plugins, too: before anything else costs time or tells secrets.
    fn mutate(&self, attributes: &mut Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        check(attributes, context)
    }

    fn validate(&self, attributes: &Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        check(attributes, context)
    }
}

fn check(attributes: &Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
    if attributes.is("", "namespaces") {
        let deletes = attributes.operation == Operation::Delete && IMMORTAL.contains(&attributes.name);
        return match deletes {
            true => Err(attributes.forbidden("this namespace may not be deleted")),
            false => Ok(()),
        };
    }
    let concerned = matches!(attributes.operation, Operation::Create | Operation::Update);
    if attributes.namespace.is_empty()
        || !concerned
        || attributes.resource == "namespaces"
        || attributes.is("authorization.k8s.io", "localsubjectaccessreviews")
    {
        return Ok(());
    }
    let namespace = attributes.namespace;
    let Some(object) = context.known.namespace(namespace) else {
        return Err(ApiError::not_found("", "namespaces", namespace));
    };
    let terminating =
        object.deletion_timestamp().is_some() || object.str_at("/status/phase") == Some("Terminating");
    if attributes.operation == Operation::Create && terminating {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
        return Err(attributes.forbidden(&why).with_cause(
            "NamespaceTerminating",
            &cause,
            "metadata.namespace",
        ));
    }
    Ok(())
}
