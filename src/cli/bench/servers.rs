//! What the two URLs say of themselves, and whether it would be fair to compare them.

use anyhow::{Context, bail};
use serde_json::Value;

use super::client::Client;
use super::counters::is_sidecar;
use super::record::Server;

/// Asks the server at `url` for its model, the first or the one named `model`.
pub(super) async fn examine(client: &Client, url: &str, model: Option<&str>) -> anyhow::Result<Server> {
    let models = client.get(&format!("{url}/v1/models")).await?;
    let models: Value = serde_json::from_str(&models).with_context(|| format!("{url}/v1/models makes no sense"))?;
    let list = models["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = list.iter().find(|card| model.is_none_or(|model| card["id"] == model));
    let Some((card, id)) = found.and_then(|card| Some((card, card["id"].as_str()?))) else {
        bail!("{url} has no model {}", model.unwrap_or_default());
    };
    let version = client.get(&format!("{url}/version")).await.ok();
    let version = version.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    Ok(Server {
        url: url.to_owned(),
        model: id.to_owned(),
        root: card["root"].as_str().map(str::to_owned),
        max_model_len: card["max_model_len"].as_u64(),
        version: version.and_then(|version| version["version"].as_str().map(str::to_owned)),
        sidecar: client.get(&format!("{url}/metrics")).await.ok().map(|page| is_sidecar(&page)),
    })
}

/// Refuses what cannot be compared fairly, and says what else a reader should know.
pub(super) fn judge(direct: Option<&Server>, proxied: Option<&Server>) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    if let Some(direct) = direct {
        match direct.sidecar {
            Some(true) => bail!("{} is a sidecar: --direct must be the server itself", direct.url),
            Some(false) => {}
            None => {
                notes.push("The direct server has no metrics page, so nothing shows that it is not a sidecar.".into())
            }
        }
    }
    if let Some(proxied) = proxied.filter(|proxied| proxied.sidecar != Some(true)) {
        notes.push(format!("{} has no metrics of a sidecar: its rounds are another server's.", proxied.url));
    }
    if let (Some(direct), Some(proxied)) = (direct, proxied) {
        let card = |server: &Server| (server.model.clone(), server.root.clone(), server.max_model_len);
        if card(direct) != card(proxied) {
            bail!("the models differ: {} and {}", describe(direct), describe(proxied));
        }
        if direct.version != proxied.version {
            bail!("the versions differ: {:?} directly and {:?} proxied", direct.version, proxied.version);
        }
        if direct.url == proxied.url {
            notes.push("Both URLs are the same: the ratio shows nothing but noise.".into());
        }
    }
    Ok(notes)
}

fn describe(server: &Server) -> String {
    let root = server.root.as_deref().unwrap_or("an unknown place");
    let longest = server.max_model_len.map_or_else(|| "an unknown number of".to_owned(), |tokens| tokens.to_string());
    format!("{} (from {root}, {longest} tokens) at {}", server.model, server.url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, sidecar: Option<bool>) -> Server {
        Server {
            url: url.to_owned(),
            model: "m".to_owned(),
            root: Some("/models/m".to_owned()),
            max_model_len: Some(4096),
            version: Some("0.32.0".to_owned()),
            sidecar,
        }
    }

    #[test]
    fn a_sidecar_is_not_the_server_itself() {
        let error = judge(Some(&server("http://a", Some(true))), None).unwrap_err();
        assert_eq!(error.to_string(), "http://a is a sidecar: --direct must be the server itself");
    }

    #[test]
    fn different_models_are_not_compared() {
        let (direct, proxied) = (server("http://a", Some(false)), server("http://b", Some(true)));
        assert_eq!(judge(Some(&direct), Some(&proxied)).unwrap(), Vec::<String>::new());
        for other in [
            Server { model: "n".into(), ..proxied.clone() },
            Server { root: Some("/models/n".into()), ..proxied.clone() },
            Server { max_model_len: Some(2048), ..proxied.clone() },
            Server { version: Some("0.31.0".into()), ..proxied.clone() },
        ] {
            assert!(judge(Some(&direct), Some(&other)).unwrap_err().to_string().contains("differ"), "{other:?}");
        }
    }

    #[test]
    fn what_is_odd_but_not_unfair_is_noted() {
        let direct = server("http://a", Some(false));
        let notes = judge(Some(&direct), Some(&direct)).unwrap();
        assert!(notes[0].contains("no metrics of a sidecar") && notes[1].contains("the same"), "{notes:?}");
        assert!(judge(Some(&server("http://a", None)), None).unwrap()[0].contains("no metrics page"));
    }
}
