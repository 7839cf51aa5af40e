//! Blocks as one HTML page in the report's style.

use super::{Block, Line, Prose, Span};
use crate::csp;
use crate::escape::{html as esc, shorten, slug};
use crate::html::STYLE;

/// Longest piece of text.
const LONG: usize = 8000;

fn spans(line: &Line) -> String {
    let one = |s: &Span| match s {
        Span::Text(t) => esc(&shorten(t, LONG)),
        Span::Strong(t) => format!("<strong>{}</strong>", esc(&shorten(t, LONG))),
        Span::Code(t) => format!("<code>{}</code>", esc(&shorten(t, 300))),
        Span::Link { code, href } => format!("<a href=\"{}\"><code>{}</code></a>", esc(href), esc(&shorten(code, 300))),
    };
    line.iter().map(one).collect()
}

/// The whole page. Links lead to files beside it; nothing is loaded and no script runs.
pub(crate) fn page(prose: &Prose, title: &str) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"{}\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta \
         name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body class=\"prose\">\n<main>\n",
        csp::policy(STYLE),
        esc(&shorten(title, 120))
    );
    let mut number = 0;
    for block in &prose.blocks {
        match block {
            Block::Heading(level, t) => {
                number += 1;
                let level = (*level).clamp(1, 6);
                let id = format!("s{number}-{}", slug(t));
                out += &format!("<h{level} id=\"{id}\"><bdi>{}</bdi></h{level}>\n", esc(&shorten(t, 300)));
            }
            Block::Paragraph(line) => out += &format!("<p>{}</p>\n", spans(line)),
            Block::List(lines) => {
                let items: String = lines.iter().map(|l| format!("<li>{}</li>\n", spans(l))).collect();
                out += &format!("<ul>\n{items}</ul>\n");
            }
            Block::Table(head, rows) => {
                let cells: String = head.iter().map(|h| format!("<th scope=\"col\">{}</th>", esc(h))).collect();
                out += &format!(
                    "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Table\"><table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n"
                );
                for row in rows {
                    let cells: String = row.iter().map(|c| format!("<td>{}</td>", spans(c))).collect();
                    out += &format!("<tr>{cells}</tr>\n");
                }
                out += "</tbody>\n</table></div>\n";
            }
            Block::Command(c) => out += &format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", esc(&shorten(c, LONG))),
            Block::Person(p) => {
                let class = if p.finished() { "person" } else { "person open" };
                out += &format!("<div class=\"{class}\">\n");
                match &p.written {
                    None => {
                        out += &format!(
                            "<p><strong>{}.</strong> {}</p>\n",
                            super::person::UNFINISHED,
                            esc(&shorten(&p.prompt, LONG))
                        );
                    }
                    // Markdown of a person is shown as it was written.
                    Some(w) => {
                        let parts = w.split("\n\n").map(str::trim).filter(|p| !p.is_empty());
                        parts.for_each(|p| out += &format!("<p class=\"lines\">{}</p>\n", esc(&shorten(p, LONG))));
                    }
                }
                out += "</div>\n";
            }
        }
    }
    out + "</main>\n</body>\n</html>\n"
}
