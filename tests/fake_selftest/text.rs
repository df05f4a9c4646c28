use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::support::fake_vllm::{EOS_TEXT, FakeVllm, TextCodec};
use super::{COMPLETIONS, ok};

#[tokio::test]
async fn the_tokenizer_file_says_what_the_server_says() {
    let fake = FakeVllm::start_default().await;
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::from_file(fake.write_tokenizer(dir.path())).unwrap();
    let text = "the café, 2 😀!\n";
    let ids = tokenizer.encode(text, true).unwrap().get_ids().to_vec();
    let there = ok(&fake, "/tokenize", json!({"prompt": text})).await;
    assert_eq!((&there["tokens"], &there["count"]), (&json!(ids), &json!(ids.len())));
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    assert_eq!(ok(&fake, "/detokenize", json!({"tokens": ids})).await["prompt"], text);
    assert_eq!(tokenizer.token_to_id(EOS_TEXT), Some(fake.language().eos()));
    assert_eq!(tokenizer.get_vocab_size(true), 64);
}

#[test]
fn some_texts_have_two_tokenizations() {
    let codec = TextCodec::new(64);
    let piece = (0..63).find(|&id| codec.decode(&[id], true) == "the" || codec.decode(&[id], true) == "ing").unwrap();
    let retokenised = codec.encode(&codec.decode(&[piece], true));
    assert!(retokenised.len() > 1 && codec.decode(&retokenised, true) == codec.decode(&[piece], true));
}

#[test]
fn a_character_over_several_tokens_belongs_to_the_last() {
    let codec = TextCodec::new(64);
    let bytes = codec.encode("a😀");
    let decoded: Vec<String> = (0..5).map(|at| codec.decoded_token(&bytes[..at], bytes[at])).collect();
    assert_eq!(decoded, ["a", "", "", "", "😀"]);
}

#[test]
fn vocabularies_of_any_size_load() {
    for vocab in [2, 8, 63, 64, 65, 300, 1000] {
        let codec = TextCodec::new(vocab);
        assert_eq!(codec.decode(&[vocab as u32 - 1], false), EOS_TEXT);
    }
}

#[tokio::test]
async fn completions_echo_and_spell_their_tokens() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"prompt": "ab", "max_tokens": 1, "echo": true, "logprobs": 1, "allowed_token_ids": [3]});
    let choice = ok(&fake, COMPLETIONS, body).await["choices"][0].clone();
    assert_eq!(choice["text"], "abc");
    assert_eq!(choice["logprobs"]["tokens"], json!(["a", "b", "c"]));
    assert_eq!(choice["logprobs"]["text_offset"], json!([0, 1, 2]));
    assert!(choice["logprobs"]["token_logprobs"][0].is_null() && choice["logprobs"]["token_logprobs"][1].is_number());
}

#[tokio::test]
async fn what_ended_a_sequence_is_in_its_tokens_and_not_in_its_text() {
    let fake = FakeVllm::start_default().await;
    let end = fake.language().eos();
    let finish = |body: Value| {
        let fake = &fake;
        async move {
            let choice = ok(fake, COMPLETIONS, body).await["choices"][0].clone();
            json!([choice["token_ids"], choice["text"], choice["finish_reason"], choice["stop_reason"]])
        }
    };
    let base = json!({"prompt": [1], "return_token_ids": true, "allowed_token_ids": [end]});
    assert_eq!(finish(base).await, json!([[end], "", "stop", null]));
    let base = json!({"prompt": [1], "return_token_ids": true, "allowed_token_ids": [2], "stop_token_ids": [2]});
    assert_eq!(finish(base.clone()).await, json!([[2], "", "stop", 2]));
    let mut with_stop = base;
    with_stop["include_stop_str_in_output"] = json!(true);
    assert_eq!(finish(with_stop).await, json!([[2], "b", "stop", 2]));
    let base =
        json!({"prompt": [1], "return_token_ids": true, "allowed_token_ids": [2], "stop": "bbb", "min_tokens": 4});
    assert_eq!(finish(base).await, json!([[2, 2, 2, 2, 2], "bb", "stop", "bbb"]));
}

#[tokio::test]
async fn a_chat_is_rendered_as_tokenize_renders_it() {
    let fake = FakeVllm::start_default().await;
    let messages = json!([{"role": "user", "content": "hi"}]);
    let ids = ok(&fake, "/tokenize", json!({"messages": messages})).await;
    let reply = ok(&fake, "/v1/chat/completions", json!({"messages": messages, "max_tokens": 4})).await;
    assert_eq!(reply["usage"]["prompt_tokens"], ids["count"]);
    assert_eq!(reply["choices"][0]["message"]["role"], "assistant");
}
