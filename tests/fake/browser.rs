//! Chromium without a window, told what to do over its debugging pipe.

use std::process::Stdio;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The pipe is the descriptors 3 and 4.
const START: &str = r#"exec chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --force-color-profile=srgb \
    --remote-debugging-pipe --user-data-dir="$1" about:blank 3<&0 4>&1 0</dev/null 1>/dev/null 2>&1"#;

/// A browser with one page.
pub struct Browser {
    commands: ChildStdin,
    replies: BufReader<ChildStdout>,
    calls: u64,
    session: Option<String>,
    _child: Child,
    _profile: TempDir,
}

impl Browser {
    /// A page of `url` on a screen that is so wide.
    pub async fn open(url: &str, width: u32, height: u32, is_phone: bool) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", START, "sh", profile.path().to_str().unwrap()]).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Debian's chromium");
        let (commands, replies) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser = Self { commands, replies, calls: 0, session: None, _child: child, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true})).await;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        let scale = if is_phone { 2 } else { 1 };
        let screen = json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone});
        browser.call("Emulation.setDeviceMetricsOverride", screen).await;
        let opened = browser.call("Page.navigate", json!({"url": url})).await;
        assert!(opened.get("errorText").is_none(), "{opened}");
        browser
    }

    /// What an expression of the page comes to, which may be a promise.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let wanted = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let evaluated = self.call("Runtime.evaluate", wanted).await;
        assert!(evaluated.get("exceptionDetails").is_none(), "{expression}: {evaluated}");
        evaluated["result"]["value"].clone()
    }

    /// Waits until an expression of the page holds.
    pub async fn until(&mut self, condition: &str) {
        let watch = format!(
            "new Promise(done => {{ const look = () => {{ if ({condition}) done(true); }}; look();
             new MutationObserver(look).observe(document, {{ subtree: true, childList: true, attributes: true }}); }})"
        );
        self.evaluate(&watch).await;
    }

    /// A picture of the whole page.
    pub async fn picture(&mut self) -> Vec<u8> {
        let size = self.evaluate("[innerWidth, document.documentElement.scrollHeight]").await;
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        let wanted = json!({"format": "png", "clip": clip, "captureBeyondViewport": true, "optimizeForSpeed": false});
        let picture = self.call("Page.captureScreenshot", wanted).await;
        BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).await.unwrap();
        loop {
            let mut reply = Vec::new();
            self.replies.read_until(0, &mut reply).await.unwrap();
            let reply: Value = serde_json::from_slice(reply.strip_suffix(b"\0").expect("Chromium has ended")).unwrap();
            // Others are events.
            if reply["id"] == self.calls {
                assert!(reply.get("error").is_none(), "{method}: {reply}");
                return reply["result"].clone();
            }
        }
    }
}
