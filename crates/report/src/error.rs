/// Why a document cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A number is not finite, which JSON cannot hold.
    #[error("{place}: the number is not finite; leave the value out where it is undefined")]
    NotFinite {
        /// Finding and field.
        place: String,
    },
    /// The document cannot be serialised.
    #[error("the audit cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}
