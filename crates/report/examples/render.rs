//! Writes report and documents of an audit again, without running it: `cargo run --example render -- RUN_DIR OUT_DIR`.

use std::path::Path;

use netproof_core::AuditDocument;
use netproof_report::{HtmlOptions, annex, model_card, render_html, to_bom};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(run), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("give the run folder and the folder to write to".into());
    };
    let (run, out) = (Path::new(&run), Path::new(&out));
    let document: AuditDocument = serde_json::from_slice(&std::fs::read(run.join("audit.json"))?)?;
    let pictures = document.all_findings().flat_map(|f| &f.evidence).flat_map(|e| e.pictures());
    let images = pictures.filter_map(|p| Some((p.file.clone(), std::fs::read(run.join(&p.file)).ok()?))).collect();
    let options = HtmlOptions { images, ..HtmlOptions::default() };
    std::fs::write(out.join("report.html"), render_html(&document, &[], &options))?;
    std::fs::write(out.join("model-card.md"), model_card(&document, None, false)?.markdown)?;
    let annex = annex(&document, None, false)?;
    std::fs::write(out.join("technical-documentation.md"), annex.markdown)?;
    std::fs::write(out.join("technical-documentation.html"), annex.html)?;
    std::fs::write(out.join("bom.cdx.json"), to_bom(&document))?;
    Ok(())
}
