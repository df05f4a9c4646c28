"use strict";
const EVERY = 2000, KEPT = 61;
const lock = document.getElementById("lock"), state = document.getElementById("state");
let key = sessionStorage.getItem("key") || "";
lock.onsubmit = event => { event.preventDefault(); key = document.getElementById("key").value; sessionStorage.setItem("key", key); update(); };

// Samples of Prometheus's text format: name, labels, value.
function parse(page) {
  const samples = [];
  for (const line of page.split("\n")) {
    const found = /^([\w:]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] || "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(each => [each[1], each[2]]));
    samples.push({ name: found[1], labels, value: Number(found[3]) });
  }
  return samples;
}

// What the page shows is made of these sums.
function totals(samples) {
  const of = name => samples.filter(each => each.name === name);
  const sum = (name, label, value) =>
    of(name).filter(each => !label || each.labels[label] === value).reduce((all, each) => all + each.value, 0);
  const by = (name, label) => of(name).map(each => [each.labels[label], each.value]);
  const requests = outcome => by("sidedraft_requests_total", "reason").filter((_, at) => of("sidedraft_requests_total")[at].labels.outcome === outcome);
  return {
    time: Date.now(),
    drafts: sum("vllm:spec_decode_num_drafts_total"), accepted: sum("vllm:spec_decode_num_accepted_tokens_total"),
    decoded: sum("sidedraft_decoded_tokens_total"), decoding: sum("sidedraft_decode_duration_seconds_sum"),
    verifying: sum("sidedraft_verify_duration_seconds_sum"), verified: sum("sidedraft_verify_duration_seconds_count"),
    drafting: sum("sidedraft_draft_duration_seconds_sum"), drafted: sum("sidedraft_draft_duration_seconds_count"),
    running: sum("sidedraft_rollouts_running"), speculated: sum("sidedraft_requests_total", "outcome", "speculated"),
    positions: by("vllm:spec_decode_num_accepted_tokens_per_pos_total", "position"),
    proposed: Object.fromEntries(by("sidedraft_drafted_tokens_per_pos_total", "position")),
    steps: of("sidedraft_steps_total").map(each => [each.labels.mode + ": " + words(each.labels.reason), each.value]),
    forwarded: requests("forwarded"), refused: requests("refused"),
    errors: [
      ["requests", sum("sidedraft_requests_total", "outcome", "failed")],
      ...of("sidedraft_draft_failures_total").map(each => ["drafter " + each.labels.drafter + ": " + words(each.labels.reason), each.value]),
      ...by("sidedraft_verify_refused_total", "strategy").map(([strategy, count]) => ["verification by " + words(strategy), count]),
      ["connections held back", sum("sidedraft_breaker_openings_total")],
      ["spans lost", sum("sidedraft_spans_lost_total")],
    ],
    policy: of("sidedraft_policy_info").map(each => each.labels.version)[0], paused: sum("sidedraft_paused") > 0,
    up: sum("sidedraft_upstream_ready") > 0,
  };
}

const words = text => (text || "").replaceAll("_", " ");
const ratio = (above, below) => below > 0 ? above / below : null;
const shown = (value, digits, unit = "") => value === null ? "–" : value.toFixed(digits) + unit;
const tokens = all => all.drafts + all.accepted + all.decoded;
const since = (now, then) => Object.fromEntries(Object.entries(now).filter(([, value]) => typeof value === "number").map(([name, value]) => [name, value - then[name]]));
const length = all => { const mean = ratio(all.accepted, all.drafts); return mean === null ? null : 1 + mean; };
const speedup = all => {
  const fast = ratio(all.accepted + all.drafts, all.verifying + all.drafting), slow = ratio(all.decoded, all.decoding);
  return fast === null || !slow ? null : fast / slow;
};
const ms = (seconds, count) => { const mean = ratio(seconds, count); return mean === null ? null : mean * 1000; };

// Text is put in as text: names of fields come from clients.
function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}
function box(kind, name, ...children) {
  const made = element("section", null, element("h2", name), ...children);
  made.className = kind;
  return made;
}
function number(name, value, lately, kind = "") {
  return box(kind, name, element("p", value), ...(lately ? [element("small", lately)] : []));
}
function list(name, rows, all = rows.reduce((sum, [, count]) => sum + count, 0), show = String) {
  const lines = rows.filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]).map(([label, count]) => {
    const bar = element("span", null, element("i", null)), line = element("div", null, element("span", words(label) || "other"), element("b", show(count)), bar);
    bar.className = "bar"; line.className = "row"; bar.firstChild.style.width = 100 * count / all + "%";
    return line;
  });
  return box("half", name, ...(lines.length ? lines : [element("small", "none")]));
}
function columns(name, values) {
  const made = element("div", null, ...values.map(([label, share]) => {
    const column = element("i", null);
    // Above and below it there is a line of text.
    column.style.height = `calc((100% - 2.2rem) * ${share})`;
    return element("div", null, element("small", Math.round(100 * share) + (values.length > 8 ? "" : " %")), column, element("small", label));
  }));
  made.className = "columns";
  return box("half", name, values.length ? made : element("small", "none"));
}
function curve(name, values) {
  const draw = (tag, attributes) => {
    const made = document.createElementNS(document.getElementById("drawing").content.firstChild.namespaceURI, tag);
    for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
    return made;
  };
  const most = Math.max(1, ...values), points = values.map((value, at) => (KEPT - 1 - values.length + at) + "," + (100 - 94 * value / most));
  const svg = draw("svg", { viewBox: `0 0 ${KEPT - 2} 100`, preserveAspectRatio: "none", role: "img", "aria-label": name });
  const left = KEPT - 1 - values.length;
  if (values.length > 1) svg.append(draw("path", { d: `M${left},100 L${points.join(" L")} L${KEPT - 2},100 Z` }), draw("polyline", { points: points.join(" ") }));
  return box("half", name, element("p", values.length ? shown(values.at(-1), 0) : "–"), svg);
}

const seen = [];
function show(now) {
  seen.push(now);
  if (seen.length > KEPT) seen.shift();
  state.textContent = !now.up ? "vLLM does not answer" : now.paused ? "paused" : "vLLM is ready";
  state.className = !now.up ? "down" : now.paused ? "" : "up";
  document.getElementById("policy").textContent = now.policy === undefined ? "" : "policy version " + now.policy;
  const minute = since(now, seen[Math.max(0, seen.length - 31)]);
  const lately = (value, digits, unit) => value === null ? "" : "last minute " + shown(value, digits, unit);
  const speeds = seen.slice(1).map((each, at) => Math.max(0, 1000 * (tokens(each) - tokens(seen[at])) / (each.time - seen[at].time)));
  document.getElementById("figures").replaceChildren(
    number("Speed-up, estimated", shown(speedup(now), 2, " ×"), lately(speedup(minute), 2, " ×"), "first"),
    number("Acceptance length", shown(length(now), 2), lately(length(minute), 2, "")),
    number("Verification, mean", shown(ms(now.verifying, now.verified), 1, " ms"), lately(ms(minute.verifying, minute.verified), 1, " ms")),
    number("Drafting, mean", shown(ms(now.drafting, now.drafted), 1, " ms"), lately(ms(minute.drafting, minute.drafted), 1, " ms")),
    curve("Tokens per second, last two minutes", speeds),
    columns("Acceptance by position", now.positions.map(([at, count]) => [Number(at) + 1, ratio(count, now.proposed[at]) || 0]).sort((a, b) => a[0] - b[0]).slice(0, 16)),
    number("Rollouts under way", String(now.running)),
    number("Speculated requests", now.speculated.toLocaleString("en")),
    number("Tokens by speculation", shown(ratio(100 * (now.drafts + now.accepted), tokens(now)), 0, " %")),
    number("Tokens", tokens(now).toLocaleString("en")),
    list("Steps by mode and reason", now.steps, undefined, count => shown(100 * count / now.steps.reduce((sum, each) => sum + each[1], 0), 1, " %")),
    list("Forwarded, by reason", now.forwarded),
    list("Turned away, by reason", now.refused),
    list("Errors by source", now.errors),
  );
  document.body.dataset.updates = seen.length;
}

async function update() {
  try {
    const reply = await fetch("metrics", { headers: key ? { Authorization: "Bearer " + key } : {}, cache: "no-store" });
    lock.hidden = reply.status !== 401;
    if (reply.ok) return show(totals(parse(await reply.text())));
    state.textContent = reply.status === 401 ? "a key is needed" : "answered " + reply.status;
  } catch {
    state.textContent = "does not answer";
  }
  state.className = "down";
}
update();
setInterval(update, EVERY);
