//! Dry runs of a mapping: begun with what is to be tried, then asked to go on until they are
//! done. Each answer holds the report so far.

use bytes::Bytes;
use serde::Deserialize;
use shardmill_core::sandbox::LoadError;

use super::error::Error;
use super::mappings::{Place, place};
use super::request::Call;
use super::{Answer, ok};
use crate::mapping::{DEFAULT_DRY_RUN_RECORDS, DryRunError, DryRunRequest, RewindTo};

/// What is to be tried.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// Filters instead of the mapping's.
    filters: Option<Vec<String>>,
    /// A module, base64.
    module: Option<String>,
    /// `TRIM_HORIZON`.
    position: Option<String>,
    /// RFC 3339.
    timestamp: Option<String>,
    sequence_number: Option<String>,
    limit: Option<u64>,
}

/// Begins a dry run.
pub(super) async fn begin(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let body: Body = call.json()?;
    let from = match (&body.position, &body.timestamp, &body.sequence_number) {
        (None, None, None) => RewindTo::TrimHorizon,
        (position, timestamp, number) => place(Place {
            position: position.as_deref(),
            timestamp: timestamp.as_deref(),
            sequence_number: number.as_deref(),
        })?,
    };
    let module = body.module.map(|text| {
        let wasm = base64_simd::STANDARD.decode_to_vec(text);
        wasm.map(Bytes::from)
            .map_err(|_| Error::bad_request("module: base64 expected"))
    });
    let request = DryRunRequest {
        filters: body.filters,
        module: module.transpose()?,
        from,
        limit: body.limit.unwrap_or(DEFAULT_DRY_RUN_RECORDS),
    };
    let mappings = &call.workloads()?.mappings;
    ok(&mappings.dry_run(&call.scope, name, request).await?)
}

/// Goes on with a dry run.
pub(super) async fn go_on(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    let mappings = &call.workloads()?.mappings;
    ok(&mappings.dry_run_on(&call.scope, id).await?)
}

impl From<DryRunError> for Error {
    fn from(error: DryRunError) -> Self {
        match error {
            DryRunError::Mapping(error) => error.into(),
            DryRunError::Function(error) => error.into(),
            DryRunError::NotFound(_) => Self::not_found(error),
            DryRunError::TooMany | DryRunError::Throttled(_) => Self::conflict(error),
            DryRunError::Module(LoadError::TooLarge { .. }) => Self::too_large(error),
            DryRunError::Filter(_)
            | DryRunError::Module(_)
            | DryRunError::Limit(_)
            | DryRunError::Nothing(_)
            | DryRunError::Window(_)
            | DryRunError::TooMuchState(_) => Self::bad_request(error),
        }
    }
}
