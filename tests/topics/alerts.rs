//! Alert rules and dashboards: Prometheus loads the rules, each alert fires for what it is about and for nothing else, and what a
//! dashboard asks with is declared in it. That the metrics they name exist is seen beside a running service, in `http`. No server.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::support::{root, services_folder};

#[test]
fn prometheus_loads_the_rules_and_each_fires_for_what_it_is_about() {
    let promtool = services_folder().join("promtool/bin/promtool");
    if !promtool.exists() {
        println!("not tried: there is no promtool here; `scripts/services.sh promtool-fetch` gets it");
        return;
    }
    for arguments in [["check", "rules", "docs/prometheus-rules.yml"], ["test", "rules", "tests/support/alerts.yml"]] {
        let output = Command::new(&promtool).current_dir(root()).args(arguments).output().expect("promtool starts");
        let told = [output.stdout, output.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()).concat();
        assert!(output.status.success(), "promtool {arguments:?}: {told}");
        assert!(told.contains("SUCCESS"), "promtool {arguments:?}: {told}");
    }
}

#[test]
fn every_alert_is_tried_out() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("a file of the checkout");
    let (rules, tried) = (read("docs/prometheus-rules.yml"), read("tests/support/alerts.yml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        assert!(tried.contains(&format!("alertname=\"{alert}\"")), "tests/support/alerts.yml does not try {alert}");
    }
}

#[test]
fn dashboards_are_whole() {
    for path in ["docs/grafana.json", "docs/grafana-service.json"] {
        let text = std::fs::read_to_string(root().join(path)).expect("a dashboard");
        let board: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        for field in ["title", "uid", "schemaVersion", "time"] {
            assert!(!board[field].is_null(), "{path} has no {field}");
        }
        let declared = board["templating"]["list"].as_array().expect("variables").iter();
        let declared: BTreeSet<&str> = declared.map(|variable| variable["name"].as_str().expect("a name")).collect();
        let panels = board["panels"].as_array().expect("panels");
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in panels {
            let title = panel["title"].as_str().expect("a panel has a title");
            let at = |side: &str| panel["gridPos"][side].as_u64().unwrap_or_else(|| panic!("{path}: {title}: {side}"));
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{path}: {title} repeats an id");
            assert!(panel["type"].is_string(), "{path}: {title} is of no type");
            assert!(at("x") + at("w") <= 24, "{path}: {title} is beyond the grid");
            let fields = (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)));
            for field in fields {
                assert!(taken.insert(field), "{path}: {title} lies over another panel");
            }
            let targets = panel["targets"].as_array().expect("targets");
            assert!(!targets.is_empty(), "{path}: {title} asks nothing");
            for target in targets {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{path}: {title}");
            }
        }
        assert!(panels.len() > 5, "{path}");
        for name in variables(&text) {
            assert!(
                declared.contains(name) || name.starts_with("__"),
                "{path} uses ${name}, which it does not declare"
            );
        }
    }
}

/// `$name` and `${name:format}`.
fn variables(text: &str) -> BTreeSet<&str> {
    let names = text.split('$').skip(1).map(|rest| {
        let rest = rest.trim_start_matches('{');
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
    });
    names.filter(|name| !name.is_empty()).collect()
}
