//! Columns of the RBAC kinds.

use serde_json::Value;

use super::view::{self, items, number, or, text};
use super::{Column, Printer, human_duration};

/// RoleBindings and ClusterRoleBindings.
pub const BINDINGS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Role", "Role that is granted."),
        Column::AGE,
        Column::text("Users", "Users it is granted to.").wide(),
        Column::text("Groups", "Groups it is granted to.").wide(),
        Column::text("ServiceAccounts", "Service accounts it is granted to.").wide(),
    ],
    cells: |binding, now| {
        let subjects = |kind: &str| {
            let names = items(binding, "/subjects").iter().filter(|s| text(s, "/kind") == kind).map(|s| {
                match text(s, "/namespace") {
                    "" => text(s, "/name").to_owned(),
                    namespace => format!("{namespace}/{}", text(s, "/name")),
                }
            });
            names.collect::<Vec<_>>().join(", ")
        };
        vec![
            view::name(binding),
            format!("{}/{}", text(binding, "/roleRef/kind"), text(binding, "/roleRef/name")).into(),
            view::age(binding, now),
            subjects("User").into(),
            subjects("Group").into(),
            subjects("ServiceAccount").into(),
        ]
    },
};

pub const SIGNING_REQUESTS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::AGE,
        Column::text("SignerName", "Who is asked to sign."),
        Column::text("Requestor", "Who asks."),
        Column::text("RequestedDuration", "How long the certificate is to be valid."),
        Column::text("Condition", "How far the request is."),
    ],
    cells: |request, now| {
        let duration = match number(request, "/spec/expirationSeconds") {
            0 => view::NONE.to_owned(),
            seconds => human_duration(seconds),
        };
        vec![
            view::name(request),
            view::age(request, now),
            or(text(request, "/spec/signerName"), view::NONE).into(),
            text(request, "/spec/username").into(),
            duration.into(),
            signing_status(request).into(),
        ]
    },
};

fn signing_status(request: &Value) -> String {
    let has = |kind: &str| items(request, "/status/conditions").iter().any(|c| text(c, "/type") == kind);
    let mut status = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied".to_owned(),
        (false, true) => "Approved".to_owned(),
        (false, false) => "Pending".to_owned(),
    };
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !text(request, "/status/certificate").is_empty() {
        status.push_str(",Issued");
    }
    status
}

pub const WEBHOOKS: Printer = Printer {
    columns: &[Column::NAME, Column::number("Webhooks", "Number of webhooks."), Column::AGE],
    cells: |object, now| {
        vec![view::name(object), items(object, "/webhooks").len().into(), view::age(object, now)]
    },
};

pub const POLICIES: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::number("Validations", "Number of rules."),
        Column::text("ParamKind", "Kind of the parameters."),
        Column::AGE,
    ],
    cells: |policy, now| {
        let kind = match text(policy, "/spec/paramKind/kind") {
            "" => "<unset>".to_owned(),
            kind => format!("{}/{kind}", text(policy, "/spec/paramKind/apiVersion")),
        };
        let rules = items(policy, "/spec/validations").len();
        vec![view::name(policy), rules.into(), kind.into(), view::age(policy, now)]
    },
};

pub const POLICY_BINDINGS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("PolicyName", "Policy that is bound."),
        Column::text("ParamRef", "Parameters the policy gets."),
        Column::AGE,
    ],
    cells: |binding, now| {
        let parameter =
            match (text(binding, "/spec/paramRef/namespace"), text(binding, "/spec/paramRef/name")) {
                (_, "") => "<unset>".to_owned(),
                ("", name) => format!("*/{name}"),
                (namespace, name) => format!("{namespace}/{name}"),
            };
        vec![
            view::name(binding),
            text(binding, "/spec/policyName").into(),
            parameter.into(),
            view::age(binding, now),
        ]
    },
};

pub const API_SERVICES: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Service", "Who serves this group and version."),
        Column::text("Available", "Whether it can be reached."),
        Column::AGE,
    ],
    cells: |object, now| {
        let service = match text(object, "/spec/service/name") {
            "" => "Local".to_owned(),
            name => format!("{}/{name}", text(object, "/spec/service/namespace")),
        };
        let available = items(object, "/status/conditions").iter().find(|c| text(c, "/type") == "Available");
        let available = available.map_or(view::UNKNOWN.to_owned(), |c| match text(c, "/status") {
            "True" => "True".to_owned(),
            status => format!("{status} ({})", text(c, "/reason")),
        });
        vec![view::name(object), service.into(), available.into(), view::age(object, now)]
    },
};
