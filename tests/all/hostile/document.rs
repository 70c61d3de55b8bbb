//! The corpus as the table of `docs/security.md`.

use super::modules;
use super::requests::{self, How};
use super::twins;

const FIRST: &str =
    "<!-- The corpus: made from tests/hostile and tests/all/hostile. Do not edit. -->\n";
const LAST: &str = "<!-- The end of the corpus. -->\n";

/// Holds the document against the corpus, or writes it again where `UPDATE_GOLDEN` is set.
pub(super) fn is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md");
    let kept = std::fs::read_to_string(path).unwrap();
    let (before, rest) = kept.split_once(FIRST).expect("the corpus's first line");
    let (_, after) = rest.split_once(LAST).expect("the corpus's last line");
    let made = format!("{before}{FIRST}{}{LAST}{after}", table());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &made).unwrap();
        return;
    }
    assert_eq!(kept, made, "UPDATE_GOLDEN=1 writes docs/security.md again");
}

fn table() -> String {
    let modules = modules::all();
    let requests = requests::all();
    let mut text = format!(
        "\n{} modules, {} requests, and {} calls with another's names.\n",
        modules.len(),
        requests.len(),
        twins::CALLS.len()
    );
    text += "\n### Modules\n\n| module | what it tries | deploy | what its mapping ends in |\n| --- | --- | --- | --- |\n";
    for module in modules {
        let end = module.end.as_deref().unwrap_or("");
        let end = if end == "done" { end.into() } else { code(end) };
        let deploy = if module.deploy == "200" {
            "deployed".into()
        } else {
            code(&module.deploy)
        };
        text += &row(&[&module.name, &module.tries, &deploy, &end]);
    }
    text += "\n### Requests\n\n| request | what it tries | answer |\n| --- | --- | --- |\n";
    for attack in requests {
        let answer = match attack.how {
            How::Elsewhere(file, test) => format!("`{file}`: `{test}`"),
            How::Here(_) => code(attack.answer),
        };
        text += &row(&[attack.name, attack.tries, &answer]);
    }
    text += "\n### Another's names\n\nAnswered word for word as the name of nothing:\n\n";
    let calls: Vec<String> = twins::CALLS
        .iter()
        .map(|call| format!("`{}`", call.name()))
        .collect();
    text += &calls.join(",\n");
    text += ".\n\n";
    text
}

fn code(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("`{}`", text.trim_end())
    }
}

fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | ")).replace("|  |", "| |")
}
