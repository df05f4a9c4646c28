//! A workload: rollouts to ask for, a JSON object a line.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What a rollout starts from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Prompt {
    /// Messages of a chat.
    Messages(Vec<Value>),
    /// A text, or the ids of its tokens.
    Plain(Value),
}

/// One line: rollouts of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Where it stands in its file, from 1.
    pub number: usize,
    pub prompt: Prompt,
    /// Rollouts of one prompt belong together; a name for them.
    pub group: Option<String>,
    /// How many rollouts it stands for.
    pub n: usize,
    pub max_tokens: Option<u64>,
    pub temperature: Option<f64>,
    /// The number that a right answer ends with.
    pub answer: Option<f64>,
}

/// A file of lines.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Workload {
    /// The file's name without its ending.
    pub name: String,
    /// At least one.
    pub lines: Vec<Line>,
    /// Keys that mean nothing to the benchmark.
    pub ignored: BTreeSet<String>,
}

/// A line as it is written.
#[derive(Debug, Deserialize)]
struct Written {
    messages: Option<Vec<Value>>,
    prompt: Option<Text>,
    group: Option<Value>,
    n: Option<usize>,
    max_tokens: Option<u64>,
    temperature: Option<f64>,
    answer: Option<Value>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`prompt` must be a text or a list of token ids")]
enum Text {
    Text(String),
    Ids(Vec<u32>),
}

impl Workload {
    /// Reads the file at `path`.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&name, &path.display().to_string(), &text)
    }

    /// Reads `text`, the contents of `file`, by whose name and line errors are told.
    fn parse(name: &str, file: &str, text: &str) -> anyhow::Result<Self> {
        let mut ignored = BTreeSet::new();
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let number = index + 1;
            lines.push(parse_line(number, line, &mut ignored).with_context(|| format!("{file}:{number}"))?);
        }
        if lines.is_empty() {
            bail!("{file}: no rollout in it");
        }
        Ok(Self { name: name.to_owned(), lines, ignored })
    }
}

fn parse_line(number: usize, line: &str, ignored: &mut BTreeSet<String>) -> anyhow::Result<Line> {
    let written: Written = serde_json::from_str(line).map_err(|error| {
        let text = error.to_string();
        // Its line is always 1; which line of the file it is stands before.
        let text = text.split(" at line ").next().unwrap_or_default().to_owned();
        if error.column() > 0 { anyhow::anyhow!("{text} (column {})", error.column()) } else { anyhow::anyhow!(text) }
    })?;
    let prompt = match (written.messages, written.prompt) {
        (Some(messages), None) if !messages.is_empty() => Prompt::Messages(messages),
        (Some(_), None) => bail!("`messages` is empty"),
        (None, Some(Text::Text(text))) => Prompt::Plain(text.into()),
        (None, Some(Text::Ids(ids))) if !ids.is_empty() => Prompt::Plain(ids.into()),
        (None, Some(Text::Ids(_))) => bail!("`prompt` is empty"),
        (Some(_), Some(_)) => bail!("both `messages` and `prompt`"),
        (None, None) => bail!("neither `messages` nor `prompt`"),
    };
    if written.n == Some(0) || written.max_tokens == Some(0) {
        bail!("`n` and `max_tokens` must be 1 at least");
    }
    if written.temperature.is_some_and(|temperature| temperature < 0.0) {
        bail!("`temperature` must not be negative");
    }
    let answer = written.answer.as_ref().and_then(numeric);
    if written.answer.is_some() && answer.is_none() {
        ignored.insert("answer (where it is not a number)".to_owned());
    }
    ignored.extend(written.other.into_iter().map(|(key, _)| key));
    Ok(Line {
        number,
        prompt,
        group: written.group.map(|group| group.as_str().map_or_else(|| group.to_string(), str::to_owned)),
        n: written.n.unwrap_or(1),
        max_tokens: written.max_tokens,
        temperature: written.temperature,
        answer,
    })
}

/// A number, or a text that is one.
fn numeric(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> anyhow::Result<Workload> {
        Workload::parse("w", "dir/w.jsonl", text)
    }

    #[test]
    fn a_line_is_messages_or_a_prompt_with_what_matters() {
        let text = concat!(
            r#"{"messages": [{"role": "user", "content": "hi"}], "group": "g", "n": 2, "max_tokens": 5, "answer": 3}"#,
            "\n\n",
            r#"{"prompt": "hi", "temperature": 0.5, "group": 7, "answer": "-0.5"}"#,
            "\n",
            r#"{"prompt": [1, 2], "answer": "Paris", "source": "s"}"#,
        );
        let workload = parse(text).unwrap();
        let [chat, prompt, ids] = &workload.lines[..] else { panic!("{workload:?}") };
        assert_eq!(chat.prompt, Prompt::Messages(vec![json!({"role": "user", "content": "hi"})]));
        assert_eq!((chat.number, chat.group.as_deref(), chat.n, chat.max_tokens), (1, Some("g"), 2, Some(5)));
        assert_eq!((chat.answer, prompt.answer, ids.answer), (Some(3.0), Some(-0.5), None));
        assert_eq!((prompt.number, prompt.group.as_deref(), prompt.n), (3, Some("7"), 1));
        assert_eq!((&prompt.prompt, prompt.temperature), (&Prompt::Plain("hi".into()), Some(0.5)));
        assert_eq!(ids.prompt, Prompt::Plain(json!([1, 2])));
        assert_eq!(
            workload.ignored,
            BTreeSet::from(["answer (where it is not a number)".to_owned(), "source".to_owned()])
        );
    }

    #[test]
    fn what_is_wrong_is_told_by_file_and_line() {
        let good = r#"{"prompt": "hi"}"#;
        for (line, complaint) in [
            ("{", "EOF while parsing an object (column 1)"),
            (r#"{"group": "g"}"#, "neither `messages` nor `prompt`"),
            (r#"{"prompt": "a", "messages": [{}]}"#, "both `messages` and `prompt`"),
            (r#"{"messages": []}"#, "`messages` is empty"),
            (r#"{"prompt": []}"#, "`prompt` is empty"),
            (r#"{"prompt": {}}"#, "`prompt` must be a text or a list of token ids"),
            (r#"{"prompt": "a", "n": 0}"#, "`n` and `max_tokens` must be 1 at least"),
            (r#"{"prompt": "a", "max_tokens": "5"}"#, "invalid type: string \"5\", expected u64"),
            (r#"{"prompt": "a", "temperature": -1}"#, "`temperature` must not be negative"),
        ] {
            let error = format!("{:#}", parse(&format!("{good}\n{line}\n{good}")).unwrap_err());
            assert!(error.starts_with(&format!("dir/w.jsonl:2: {complaint}")), "{line}: {error}");
        }
        assert_eq!(format!("{:#}", parse("\n").unwrap_err()), "dir/w.jsonl: no rollout in it");
    }
}
