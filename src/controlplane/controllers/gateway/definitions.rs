//! The Gateway API's CustomResourceDefinitions, made of `templates/gateway-api.yaml`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::context::{Context, Error, ignore_exists};
use client::gateway::GROUP;
use client::informer::{Cache, Key};

const TEMPLATE: &str = include_str!("../../../../templates/gateway-api.yaml");
/// The release of the Gateway API whose standard channel this is: others read it there.
const VERSION: &str = "v1.5.0";
/// Definitions of upstream's groups say who approved them.
const APPROVED: &str = "https://github.com/kubernetes-sigs/gateway-api/pull/4530";
/// Who writes them.
const MANAGER: &str = "minik-gateway";
/// The only field of theirs that has an owner.
const SHIPPED: &str = "minik.dev/shipped";

/// All definitions, as they are created.
pub(super) fn all() -> Result<Vec<Value>, Error> {
    let template: Value =
        serde_yaml::from_str(TEMPLATE).map_err(|error| Error::Other(format!("gateway-api.yaml: {error}")))?;
    Ok(template["kinds"].as_array().into_iter().flatten().map(definition).collect())
}

fn definition(of: &Value) -> Value {
    let text = |name: &str| of[name].as_str().unwrap_or_default();
    let (kind, plural) = (text("kind"), text("plural"));
    let mut schema = json!({
        "type": "object",
        "description": of["description"],
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": of["spec"],
        },
    });
    if !of["status"].is_null() {
        schema["properties"]["status"] = of["status"].clone();
    }
    // The first one is stored.
    let versions = of["versions"].as_array().into_iter().flatten().enumerate().map(|(at, version)| {
        json!({
            "name": version, "served": true, "storage": at == 0,
            "additionalPrinterColumns": of["columns"],
            "schema": { "openAPIV3Schema": schema },
            "subresources": { "status": {} },
        })
    });
    let mut names = json!({ "kind": kind, "listKind": format!("{kind}List"), "plural": plural,
        "singular": kind.to_ascii_lowercase(), "categories": ["gateway-api"] });
    if let Some(short) = of["short"].as_str() {
        names["shortNames"] = json!([short]);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{GROUP}"),
            "annotations": {
                "api-approved.kubernetes.io": APPROVED,
                format!("{GROUP}/bundle-version"): VERSION,
                format!("{GROUP}/channel"): "standard",
                SHIPPED: "true",
            },
        },
        "spec": { "group": GROUP, "scope": of["scope"], "names": names, "versions": versions.collect::<Vec<_>>() },
    })
}

/// Creates the definitions that are missing. Those that are there stay as they are: people may have brought their own.
pub(super) async fn install(context: &Context, known: &Cache<CustomResourceDefinition>) -> Result<(), Error> {
    let api: Api<DynamicObject> =
        Api::all_with(context.client.clone(), &ApiResource::erase::<CustomResourceDefinition>(&()));
    for definition in all()? {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if known.get(&Key::cluster(name.as_str())).is_some() {
            continue;
        }
        let object = serde_json::from_value(definition).map_err(|error| Error::Other(error.to_string()))?;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        if ignore_exists(api.create(&params, &object).await)?.is_some() {
            api.patch(&name, &PatchParams::default(), &Patch::Merge(disowned())).await?;
        }
    }
    Ok(())
}

/// Lets go of all fields but one: whoever applies a release of their own meets no conflict.
fn disowned() -> Value {
    json!({ "metadata": { "managedFields": [{
        "manager": MANAGER,
        "operation": "Update",
        "apiVersion": "apiextensions.k8s.io/v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": { "f:metadata": { "f:annotations": { format!("f:{SHIPPED}"): {} } } },
    }] } })
}

/// Whether a definition's objects are served.
pub(super) fn is_served(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_is_read_is_defined() {
        let names: Vec<String> = all()
            .expect("readable")
            .iter()
            .map(|definition| definition["metadata"]["name"].as_str().expect("a name").to_owned())
            .collect();
        let plurals =
            ["gatewayclasses", "gateways", "httproutes", "grpcroutes", "tlsroutes", "referencegrants"];
        assert_eq!(names, plurals.map(|plural| format!("{plural}.{GROUP}")));
    }
}
