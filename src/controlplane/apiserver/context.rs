//! One request on its way through the verbs, and what they all need of it.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;

use api::fields;
use api::meta::{Gvk, format_time};
use api::resources::{Handler, Measure, Part, Resource, Storage, Table, Verdict};
use api::schema::{self, FieldValidation, Schema};
use api::status::ApiError;
use api::table::IncludeObject;
use api::validate::FieldError;
use rt::{Clock, Stop, Tasks};
use storage::{Entry, Payload, StorageError, Store};

use super::admission::{Admission, Attributes, Operation, Warnings};
use super::audit::Notes;
use super::authz::Authorizer;
use super::conversion::Converter;
use super::convert;
use super::key::CollectionKey;
use super::observe::Observer;
use super::proxy::Streams;
use super::request::RequestInfo;
use super::reviews::Reviews;
use super::user::UserInfo;
use super::verbs::RequestBody;
use super::wire::{self, MediaType, Offer, Params};

/// The longest name of a field manager, in bytes.
const LONGEST_MANAGER: usize = 128;

/// What all requests share.
pub struct Engine {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub admission: Arc<Admission>,
    pub authorizer: Arc<Authorizer>,
    pub converter: Arc<Converter>,
    pub reviews: Arc<Reviews>,
    pub streams: Option<Arc<Streams>>,
    pub observer: Arc<Observer>,
    /// Ends watches.
    pub stop: Stop,
    /// Writes that must come to their end though their request does not.
    pub tasks: Tasks,
}

/// One request on a resource.
pub struct RequestContext<'a> {
    pub engine: &'a Engine,
    /// All resources there are.
    pub table: &'a Table,
    pub info: &'a RequestInfo,
    pub user: &'a UserInfo,
    pub resource: &'a Arc<Resource>,
    /// What answers the request's subresource; `None`: it is about the object itself.
    pub handler: Option<Handler>,
    pub media: MediaType,
    pub params: Params<'a>,
    /// Empty if the client does not say.
    pub user_agent: &'a str,
    /// What the audit log is to be told.
    pub notes: &'a Notes,
}

impl RequestContext<'_> {
    /// Where the collection stands in storage.
    pub fn collection(&self) -> CollectionKey<'_> {
        convert::collection(self.resource)
    }

    /// The key of the object that the path names.
    pub fn key(&self) -> String {
        self.collection().key(&self.info.namespace, &self.info.name)
    }

    /// The only name that a list or watch can be about, where that narrows the keys to read.
    pub fn only_name(&self) -> &str {
        let everywhere = self.resource.namespaced && self.info.namespace.is_empty();
        if everywhere { "" } else { &self.info.name }
    }

    /// The path must name one object of the scope that the resource has.
    pub fn check_single(&self) -> Result<(), ApiError> {
        if self.info.name.is_empty() || (self.resource.namespaced && self.info.namespace.is_empty()) {
            return Err(ApiError::method_not_allowed());
        }
        Ok(())
    }

    /// The part of the object that a write through this path may change; `None`: all that the kind lets change.
    pub fn part(&self) -> Option<Part> {
        match self.handler? {
            Handler::Part(part) => Some(part),
            Handler::Scale | Handler::Binding | Handler::Eviction | Handler::Token | Handler::Stream(_) => {
                None
            }
        }
    }

    /// Who the fields belong to that the request sets: `fieldManager`, else what the user agent begins with, else the user. Fails for
    /// a name that is too long or cannot be printed.
    pub fn manager(&self) -> Result<String, ApiError> {
        let Some(manager) = self.params.text("fieldManager") else {
            let agent = self.user_agent.split('/').next().filter(|agent| !agent.is_empty());
            let name = agent.unwrap_or_else(|| self.user.name.rsplit(':').next().unwrap_or_default());
            let mut manager: String = name.chars().filter(|c| !c.is_control()).collect();
            while manager.len() > LONGEST_MANAGER {
                manager.pop();
            }
            return Ok(manager);
        };
        let mut errors = Vec::new();
        if manager.len() > LONGEST_MANAGER {
            errors.push(FieldError::too_long("fieldManager", LONGEST_MANAGER));
        }
        if let Some((at, odd)) = manager.char_indices().find(|(_, c)| c.is_control()) {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(odd));
            errors.push(FieldError::invalid("fieldManager", manager, why));
        }
        match errors.is_empty() {
            true => Ok(manager.to_owned()),
            false => Err(ApiError::invalid("meta.k8s.io", self.options_kind(), "", errors)),
        }
    }

    /// The kind of the request's options.
    pub fn options_kind(&self) -> &'static str {
        match self.info.verb {
            "patch" => "PatchOptions",
            "update" => "UpdateOptions",
            _ => "CreateOptions",
        }
    }

    /// What is known of the resource's own objects.
    pub fn types(&self) -> fields::Types<'_> {
        self.resource.types()
    }

    /// Brings the field managers of an object that is about to be written up to date.
    pub fn track(&self, old: Option<&Value>, new: &mut Value) -> Result<(), ApiError> {
        let writer = fields::Writer {
            manager: &self.manager()?,
            api_version: &self.resource.api_version(),
            subresource: &self.info.subresource,
            now: &format_time(self.engine.clock.now()),
        };
        fields::track(self.types(), old, new, &writer);
        Ok(())
    }

    /// The type of the bodies that this path takes.
    pub fn body_kind(&self) -> Gvk {
        let subresource = self.resource.subresource(&self.info.subresource);
        subresource.map_or_else(|| self.resource.gvk(), |subresource| subresource.kind.clone())
    }

    /// The schema of the bodies that this path takes.
    pub fn schema(&self) -> Result<&Schema, ApiError> {
        let kind = self.body_kind();
        let own = if self.is_own(&kind) { self.resource.schema() } else { schema::builtin(&kind) };
        own.ok_or_else(|| ApiError::internal(format!("there is no schema for {kind}")))
    }

    /// Whether a body's kind is the resource's own.
    fn is_own(&self, kind: &Gvk) -> bool {
        kind.kind == self.resource.kind && kind.group == self.resource.group
    }

    /// Removes what the kind does not have, and fills in what is left out; warns of what went, or refuses it.
    fn settle(
        &self,
        object: &mut Value,
        warnings: &mut Vec<String>,
        validation: FieldValidation,
    ) -> Result<(), ApiError> {
        if !self.is_own(&self.body_kind()) {
            return Ok(());
        }
        let unknown = self.resource.strategy().prune(object);
        let unknown: Vec<String> =
            unknown.into_iter().map(|path| format!("unknown field {path:?}")).collect();
        match validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => warnings.extend(unknown),
            FieldValidation::Strict if unknown.is_empty() => {}
            FieldValidation::Strict => {
                let (kind, version) = (&self.resource.kind, &self.resource.version);
                return Err(ApiError::bad_request(format!(
                    "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {}",
                    unknown.join(", ")
                )));
            }
        }
        self.resource.default(object);
        Ok(())
    }

    /// What to do with unknown and repeated fields, from `fieldValidation`.
    pub fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.params.text("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => {
                let error =
                    FieldError::not_supported("fieldValidation", other, &["Ignore", "Warn", "Strict"]);
                Err(ApiError::invalid("meta.k8s.io", "CreateOptions", "", vec![error]))
            }
        }
    }

    /// The body as an object of the path's type, defaulted, and what to warn of.
    pub fn decode(&self, body: &RequestBody<'_>) -> Result<(Value, Vec<String>), ApiError> {
        let (kind, validation) = (self.body_kind(), self.field_validation()?);
        let (mut object, mut warnings) =
            wire::decode_object(body.headers, &body.bytes, &kind, self.schema()?, validation)?;
        self.settle(&mut object, &mut warnings, validation)?;
        Ok((object, warnings))
    }

    /// An object that came of a patch: checked against the schema and defaulted, as if it had been sent.
    pub fn complete(&self, patched: &Value) -> Result<(Value, Vec<String>), ApiError> {
        let validation = self.field_validation()?;
        let (mut object, mut warnings) = self.schema()?.convert(patched, validation)?;
        wire::check_type(&mut object, &self.body_kind())?;
        self.settle(&mut object, &mut warnings, validation)?;
        Ok((object, warnings))
    }

    /// Encodes an object for storage.
    pub fn payload(&self, object: Value) -> Result<Payload, ApiError> {
        convert::payload(self.resource, object)
    }

    /// The object that the request names, as it stands; 404 where there is none.
    pub async fn stored(&self) -> Result<Arc<Entry>, ApiError> {
        let entry = self.engine.store.get(&self.key()).await.map_err(from_storage)?;
        entry.ok_or_else(|| self.not_found())
    }

    /// A stored state in the request's version, where a webhook must make it.
    pub async fn converted(&self, entry: Arc<Entry>) -> Result<Arc<Entry>, ApiError> {
        self.engine.converter.entry(self.resource, entry).await
    }

    /// Parses a stored object, in the request's version.
    pub fn read(&self, entry: &Entry) -> Result<Value, ApiError> {
        convert::read(self.resource, &entry.data)
    }

    /// What admission is told.
    pub fn attributes<'c>(
        &'c self,
        operation: Operation,
        object: Option<Value>,
        old: Option<&'c Value>,
        dry_run: bool,
    ) -> Attributes<'c> {
        Attributes {
            user: self.user,
            operation,
            row: self.resource,
            group: &self.resource.group,
            resource: &self.resource.plural,
            kind: &self.resource.kind,
            subresource: &self.info.subresource,
            namespace: &self.info.namespace,
            name: &self.info.name,
            object,
            old,
            dry_run,
            warnings: Warnings::default(),
            notes: self.notes,
        }
    }

    /// What is to be said of an object that is to be written through this path.
    pub fn judge(&self, object: &Value, old: Option<&Value>) -> Verdict {
        match (self.part(), old) {
            (None, old) => self.resource.judge(object, old),
            (Some(part), Some(old)) => self.resource.judge_part(part, object, old),
            (Some(_), None) => Verdict::default(),
        }
    }

    /// What the path can be answered with. Only stored objects have tables and metadata of their own; only types with field
    /// numbers have a protobuf message; and a stream of YAML documents is not a thing that clients read.
    pub fn offer(&self) -> Offer {
        let shown = self.body_kind().kind == self.resource.kind || self.handler == Some(Handler::Scale);
        let listed =
            matches!(self.resource.storage, Storage::Stored | Storage::Measured(Measure::Components));
        let stored = listed && shown;
        let protobuf = self.schema().is_ok_and(|schema| schema.fields.iter().any(|field| field.number > 0));
        Offer { yaml: self.info.verb != "watch", protobuf, shapes: stored }
    }

    /// Fails where a table's rows are to include something that there is not.
    pub fn check_table(&self) -> Result<(), ApiError> {
        match self.params.get("includeObject") {
            Some(include)
                if self.media.shape == wire::Shape::Table && IncludeObject::parse(include).is_none() =>
            {
                Err(ApiError::bad_request(format!("unrecognized includeObject value: {include:?}")))
            }
            _ => Ok(()),
        }
    }

    /// What renders answers about the resource in the media type that was negotiated.
    pub fn encoder(&self) -> wire::Encoder {
        self.encoder_of(self.resource)
    }

    /// The same for objects of another row.
    pub fn encoder_of(&self, resource: &Arc<Resource>) -> wire::Encoder {
        wire::Encoder {
            media: self.media,
            resource: resource.clone(),
            include: self.params.get("includeObject").and_then(IncludeObject::parse).unwrap_or_default(),
            clock: self.engine.clock.clone(),
        }
    }

    /// Answers a stored object.
    pub fn answer_entry(&self, code: StatusCode, entry: &Entry) -> Result<Response<Body>, ApiError> {
        let encoder = self.encoder();
        Ok(wire::raw(code, encoder.content_type(), encoder.entry(entry)?))
    }

    /// Answers an object of the resource's version.
    pub fn answer_object(&self, code: StatusCode, object: &Value) -> Result<Response<Body>, ApiError> {
        let encoder = self.encoder();
        Ok(wire::raw(code, encoder.content_type(), encoder.object(object)?))
    }

    /// Answers a document that is no view of the resource: a Status, a Scale.
    pub fn answer_document(&self, code: StatusCode, document: &Value) -> Response<Body> {
        wire::value(code, self.media.format, document)
    }

    pub fn not_found(&self) -> ApiError {
        self.not_found_named(&self.info.name)
    }

    pub fn not_found_named(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.resource.group, &self.resource.plural, name)
    }

    /// The object is not the one that the client has seen.
    pub fn modified(&self) -> ApiError {
        ApiError::modified(&self.resource.group, &self.resource.plural, &self.info.name)
    }

    pub fn conflict(&self, why: &str) -> ApiError {
        ApiError::conflict(&self.resource.group, &self.resource.plural, &self.info.name, why)
    }

    pub fn invalid(&self, name: &str, errors: Vec<FieldError>) -> ApiError {
        ApiError::invalid(&self.resource.group, &self.resource.kind, name, errors)
    }
}

/// What a client is told of an error of the store.
pub fn from_storage(error: StorageError) -> ApiError {
    match error {
        StorageError::Compacted { asked, oldest } => {
            ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        StorageError::Future { asked, current } => ApiError::too_large_resource_version(asked, current),
        StorageError::Unavailable(_) => ApiError::service_unavailable(error.to_string()),
        StorageError::Overloaded => ApiError::too_many_requests(error.to_string(), 1),
        StorageError::Undecided { .. } => ApiError::timeout(&error.to_string(), 0),
        StorageError::Exists(_) | StorageError::Conflict(_) | StorageError::Taken(_) => {
            ApiError::internal(error)
        }
    }
}
