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
    /// The marks around the parts of people are broken.
    #[error(
        "the part `{id}` {problem}; each part of a person begins with `<!-- netproof:person ID -->` and ends with `<!-- /netproof:person -->`"
    )]
    Marker {
        /// The part.
        id: String,
        /// What is wrong with its marks.
        problem: &'static str,
    },
    /// Somebody changed what is made from the audit.
    #[error(
        "text outside the parts of people was changed, or the file is not Netproof's; move it between the marks of a part, \
         or write the file anew"
    )]
    Edited,
    /// The document cannot be serialised.
    #[error("the audit cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}
