//! The manual and every other page of the checkout: what they link to and quote is there. No server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::root;
use crate::topics::install::{options, said, subcommands};

/// Folders that are not of the project, or are made anew.
const PASSED_OVER: [&str; 3] = ["target", "out", "node_modules"];

fn collect(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() && !name.starts_with('.') && !PASSED_OVER.contains(&&*name) {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|of_file| of_file == extension) {
            found.push(path);
        }
    }
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(folder, extension, &mut found);
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Lines outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    })
}

/// Targets of links that do not leave the checkout.
fn links(text: &str) -> Vec<&str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// What headings are called in links, as GitHub and mdBook do.
fn anchors(text: &str) -> BTreeSet<String> {
    let slug = |heading: &str| -> String {
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(text).filter(|line| line.starts_with('#')).map(|line| slug(line.trim_start_matches('#'))).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let (mut count, mut broken) = (0, Vec::new());
    for page in files(&root(), "md") {
        let text = read(&page);
        for link in links(&text) {
            count += 1;
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { page.clone() } else { page.parent().expect("a folder").join(path) };
            let leads = target.exists() && anchor.is_none_or(|anchor| anchors(&read(&target)).contains(anchor));
            if !leads {
                broken.push(format!("{}: {link}", page.strip_prefix(root()).expect("below the root").display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count > 100, "only {count} links were found");
}

#[test]
fn links_and_headings_are_seen() {
    let text = "# A `[[b]]` c-d\n[x](y.md#z), [w](https://x)\n```\n[no](no.md)\n# no\n```\n[u](../v)\n";
    assert_eq!(links(text), ["y.md#z", "../v"]);
    assert_eq!(anchors(text), BTreeSet::from(["a-b-c-d".to_owned()]));
}

#[test]
fn the_table_of_contents_has_every_page_of_the_manual() {
    let docs = root().join("docs");
    let summary = read(&docs.join("SUMMARY.md"));
    let listed: BTreeSet<PathBuf> = links(&summary).into_iter().map(|page| docs.join(page)).collect();
    let there: BTreeSet<PathBuf> =
        files(&docs, "md").into_iter().filter(|page| !page.ends_with("SUMMARY.md")).collect();
    assert_eq!(listed, there, "docs/SUMMARY.md, and the pages in docs");
}

#[test]
fn every_command_and_option_has_its_line() {
    // Those of every command.
    const GLOBAL: [&str; 6] = ["--config", "--log-format", "--verbose", "--quiet", "--help", "--version"];
    let page = read(&root().join("docs/commands.md"));
    let mut missing = Vec::new();
    for command in subcommands(&[]) {
        let invoked = format!("`weir {command}");
        let is_its = |line: &&str| {
            let mut rests = line.split(&invoked).skip(1);
            line.starts_with("| `") && rests.any(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
        };
        let lines: String = page.lines().filter(is_its).collect();
        let nested = subcommands(&[&command]);
        let mut asked = vec![vec![command.as_str()]];
        asked.extend(nested.iter().map(|nested| vec![command.as_str(), nested.as_str()]));
        for invocation in asked {
            let word = invocation.last().expect("a command");
            if !lines.contains(word) {
                missing.push(invocation.join(" "));
            }
            let help = said(&[&invocation[..], &["--help"]].concat());
            let lacks = options(&help).into_iter().filter(|option| !GLOBAL.contains(option) && !lines.contains(option));
            missing.extend(lacks.map(|option| format!("{} {option}", invocation.join(" "))));
        }
    }
    assert!(missing.is_empty(), "docs/commands.md lacks:\n{}", missing.join("\n"));
}

#[test]
fn errors_that_troubleshooting_quotes_are_the_programs_own() {
    let folders = ["src", "mysql/src", "snapshot-loader/src", "model/src"];
    let sources = folders.iter().flat_map(|folder| files(&root().join(folder), "rs"));
    // Texts go on in the next line behind a backslash.
    let joined = |text: String| -> String {
        let mut parts = text.split("\\\n");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, next| text + next.trim_start()).replace("\\\"", "\"")
    };
    let sources: String = sources.map(|path| joined(read(&path))).collect();
    let page = read(&root().join("docs/troubleshooting.md"));
    let quoted: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(quoted, _)| quoted)).collect();
    assert!(quoted.len() > 40, "{quoted:?}");
    for text in quoted {
        let parts: Vec<&str> = text.split('…').map(|part| part.trim_matches([' ', ','])).collect();
        assert!(parts.iter().any(|part| part.len() >= 8), "`{text}` says too little to be found");
        for part in parts {
            assert!(sources.contains(part), "docs/troubleshooting.md quotes `{part}` of `{text}`, which nothing says");
        }
    }
}
