//! Pictures of the run folder, embedded, and galleries of them.

use netproof_core::{Gallery, GalleryItem, Picture};

use super::{Page, SHORT};
use crate::csp::base64;
use crate::escape::{html as esc, shorten};
use crate::number::count;

/// Most samples of one section.
const ITEMS: usize = 60;
/// Most sections of a gallery.
const SECTIONS: usize = 12;
/// Most pictures of one sample.
const PICTURES: usize = 12;
/// Most reasons not to rely on pictures.
const REASONS: usize = 12;
/// Pictures with fewer pixels than this along a side are enlarged without smoothing, so that pixels stay pixels.
const SMALL: u32 = 128;

/// The `img` element of a picture, or its description where its bytes were not handed in or are no PNG or JPEG.
fn img(page: &Page<'_>, p: &Picture, width: u32, out: &mut String) {
    let bytes = page.options.images.get(&p.file);
    let kind = bytes.and_then(|b| match b.as_slice() {
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [0xff, 0xd8, 0xff, ..] => Some("jpeg"),
        _ => None,
    });
    let alt = esc(&shorten(&p.alt, 1000));
    let (Some(bytes), Some(kind)) = (bytes, kind) else {
        out.push_str(&format!("<span class=\"gone\">{alt}</span>\n"));
        return;
    };
    let small = p.width.max(p.height) <= SMALL;
    let (w, h) = match (p.width, p.height) {
        (0, _) | (_, 0) => (width, width),
        (w, h) if small => {
            let factor = (width / w.max(h)).max(1);
            (w * factor, h * factor)
        }
        (w, h) => (w, h),
    };
    let class = if small { " class=\"px\"" } else { "" };
    out.push_str(&format!(
        "<img{class} alt=\"{alt}\" width=\"{w}\" height=\"{h}\" src=\"data:image/{kind};base64,{}\">\n",
        base64(bytes)
    ));
}

/// The sign across a picture that nobody may rely on.
fn sign(p: &Picture) -> &'static str {
    if p.warning.is_some() { "<span class=\"sign\">Do not rely on this</span>" } else { "" }
}

fn reason(p: &Picture) -> String {
    p.warning.as_ref().map_or_else(String::new, |w| format!("<p class=\"why\">{}</p>\n", esc(&shorten(w, 600))))
}

/// One picture as a figure of its own.
pub(super) fn image(page: &Page<'_>, p: &Picture, out: &mut String) {
    out.push_str(&format!(
        "<figure class=\"chart\">\n<figcaption>{}</figcaption>\n<div class=\"shot{}\">",
        esc(&shorten(&p.title, SHORT)),
        if p.warning.is_some() { " warned" } else { "" }
    ));
    img(page, p, 336, out);
    out.push_str(&format!(
        "{}</div>\n{}<p class=\"note\">File <code>{}</code>, SHA-256 <code>{}</code></p>\n</figure>\n",
        sign(p),
        reason(p),
        esc(&shorten(&p.file, SHORT)),
        esc(&shorten(&p.sha256, 80))
    ));
}

/// Sections of samples, each with its pictures side by side.
pub(super) fn render(page: &Page<'_>, g: &Gallery, out: &mut String) {
    out.push_str(&format!(
        "<div class=\"gallery full\">\n<p class=\"caption\">{}</p>\n",
        esc(&shorten(&g.title, SHORT))
    ));
    let cut = |shown: usize, of: usize, what: &str| {
        format!("<p class=\"note\">Shown: {shown} of {} {what}; all are in audit.json.</p>\n", count(of as u64))
    };
    // Said once, not below each of its pictures.
    let mut reasons: Vec<(&str, &str)> = Vec::new();
    for p in g.sections.iter().flat_map(|s| &s.items).flat_map(|i| &i.pictures) {
        let reason = p.warning.as_deref().map(|w| (p.title.as_str(), w));
        reasons.extend(reason.filter(|r| reasons.len() < REASONS && !reasons.contains(r)));
    }
    for (title, why) in reasons {
        let title = esc(&shorten(title, 120));
        out.push_str(&format!("<p class=\"why\"><strong>{title}</strong> {}</p>\n", esc(&shorten(why, 600))));
    }
    for section in g.sections.iter().take(SECTIONS) {
        out.push_str(&format!("<h4>{}</h4>\n", esc(&shorten(&section.title, SHORT))));
        if section.items.is_empty() {
            out.push_str("<p class=\"note\">None.</p>\n");
            continue;
        }
        let most = section.items.iter().map(|i| i.pictures.len()).max().unwrap_or(1);
        let size = if most > 3 {
            "wide"
        } else if most > 1 {
            "mid"
        } else {
            "slim"
        };
        out.push_str(&format!("<ul class=\"items {size}\">\n"));
        section.items.iter().take(ITEMS).for_each(|i| item(page, i, out));
        out.push_str("</ul>\n");
        if section.items.len() > ITEMS {
            out.push_str(&cut(ITEMS, section.items.len(), "samples"));
        }
    }
    if g.sections.len() > SECTIONS {
        out.push_str(&cut(SECTIONS, g.sections.len(), "sections"));
    }
    let all = g.sections.iter().flat_map(|s| &s.items).flat_map(|i| &i.pictures);
    let (mut missing, mut of) = (0u64, 0u64);
    for p in all {
        of += 1;
        missing += u64::from(!page.options.images.contains_key(&p.file));
    }
    if missing > 0 {
        out.push_str(&format!(
            "<p class=\"note\">{} of {} pictures are not in this page, so that it stays small or because they are gone; the \
             run folder may have them.</p>\n",
            count(missing),
            count(of)
        ));
    }
    out.push_str("</div>\n");
}

fn item(page: &Page<'_>, item: &GalleryItem, out: &mut String) {
    out.push_str(&format!("<li><p class=\"name\"><bdi>{}</bdi></p>\n", esc(&shorten(&item.title, SHORT))));
    if !item.note.is_empty() {
        out.push_str(&format!("<p class=\"note\">{}</p>\n", esc(&shorten(&item.note, SHORT))));
    }
    out.push_str("<div class=\"strip\">\n");
    for p in item.pictures.iter().take(PICTURES) {
        out.push_str(if p.warning.is_some() { "<figure class=\"warned\">" } else { "<figure>" });
        out.push_str("<div class=\"shot\">");
        img(page, p, 112, out);
        out.push_str(&format!("{}</div><figcaption>{}</figcaption></figure>\n", sign(p), esc(&shorten(&p.title, 120))));
    }
    out.push_str("</div>\n");
    if item.pictures.len() > PICTURES {
        out.push_str(&format!(
            "<p class=\"note\">Shown: {PICTURES} of {} pictures; all are in audit.json.</p>\n",
            count(item.pictures.len() as u64)
        ));
    }
    out.push_str("</li>\n");
}
