"use strict";
// The page: one state, drawn again where it changed.  Data comes from the server, or from scripts beside an exported page.

const LIVE = document.querySelector('meta[name="agentlab"]').content === "live";
const POLL = 2000; // milliseconds
const KINDS = ["all", "solved first", "solved later", "not solved", "broken", "running"];
const $ = (id) => document.getElementById(id);
const state = { index: null, run: null, session: null, runId: "", name: "", step: 0, kind: "all", filter: "", tokens: false,
  shown: [], seen: "" };
const raw = {}; // key -> what was last loaded, to draw only what changed

// -- data ----------------------------------------------------------------------------------------------------------------
const waiting = {}, exported = {}; // an exported page never changes: what it loaded once it keeps
window.agentlabData = (key, data) => waiting[key]?.(data);

async function load(key, query = "") {
  const path = key.split("/").map(encodeURIComponent).join("/");
  if (LIVE) {
    const answer = await fetch(`api/${path}.json${query}`);
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }
  return exported[key] ??= new Promise((resolve, reject) => {
    const script = element("script", { src: `data/${path}.js` });
    waiting[key] = (data) => { script.remove(); resolve(data); };
    script.addEventListener("error", () => reject(new Error(`${key} is not part of this export.`)));
    document.head.append(script);
  });
}

async function fresh(key) {
  const data = await load(key), text = JSON.stringify(data), changed = raw[key] !== text;
  raw[key] = text;
  return [data, changed];
}

/** The run of this id, and whether it has changed; once it is known, only the sessions that have changed are sent. */
async function freshRun(id) {
  const known = state.run?.id === id ? state.run : null;
  if (known && !LIVE) return [known, false];
  const data = await load(id, known ? `?since=${known.version}` : "");
  if (known && data.version === known.version) return [known, false];
  const lines = data.whole ? new Map() : new Map(known.sessions.map((s) => [s.name, s]));
  for (const line of data.sessions) lines.set(line.name, line);
  data.sessions = [...lines.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return [data, true];
}

const screenUrl = (attempt, screen) =>
  [LIVE ? "api" : "data", ...[state.runId, state.name, String(attempt), screen].map(encodeURIComponent)].join("/");

async function refresh(force = false) {
  try {
    const [index, newIndex] = await fresh("index");
    state.index = index;
    if (newIndex || force) drawRuns();
    const line = index.runs.find((r) => r.id === state.runId) || index.runs.find((r) => !r.problem) || index.runs[0];
    if (!line) return say("There are no runs here yet.");
    if (line.problem) { clear(line); return say(line.problem); }
    state.runId = $("runs").value = line.id;
    const [run, newRun] = await freshRun(line.id);
    if (line.id !== state.runId) return; // another run has been chosen meanwhile
    state.run = run;
    if (newRun || force) drawList();
    if (!run.sessions.some((s) => s.name === state.name)) {
      state.name = (state.shown[0] || run.sessions[0])?.name || "";
      state.seen = "";
    }
    if (state.seen !== `${run.id}/${state.name}`) reveal();
    if (!state.name) { state.session = null; drawSession(); return say("No attempt has been made yet."); }
    await refreshSession(force);
  } catch (error) {
    say(error.message);
  }
}

async function refreshSession(force = false) {
  const { runId, name } = state, [session, changed] = await fresh(`${runId}/${name}`);
  if (name !== state.name || runId !== state.runId) return; // somebody was faster
  state.session = session;
  say("");
  if (changed || force) drawSession();
}

function clear(line) {
  state.runId = $("runs").value = line.id;
  Object.assign(state, { run: null, session: null, name: "", shown: [] });
  list.show([]);
  for (const id of ["attempts", "steps", "progress", "title", "instruction"]) $(id).replaceChildren();
}

const say = (text) => { $("message").textContent = text; };

// -- the list ------------------------------------------------------------------------------------------------------------
function kindOf(session) {
  if (session.outcomes.includes("solved")) return session.outcomes[0] === "solved" ? "solved first" : "solved later";
  if (session.outcomes.includes("broken")) return "broken";
  return session.over ? "not solved" : "running";
}

function drawRuns() {
  $("runs").replaceChildren(...state.index.runs.map((r) =>
    element("option", { value: r.id }, `${r.name}: ${r.solved} of ${r.ended} solved`)));
  $("runs").value = state.runId;
}

const list = makeList($("list"), $("sessions"), (s) => element("li", {
  "data-name": s.name, "aria-current": String(s.name === state.name), title: s.problem || s.task, onclick: () => choose(s.name),
}, element("span", {}, s.task), ...s.outcomes.map((o) => element("i", { class: `dot ${o}`, title: o }))));

function drawList() {
  const counts = {}, chosen = (s) =>
    (state.kind === "all" || kindOf(s) === state.kind) && `${s.task} ${s.domain}`.toLowerCase().includes(state.filter);
  for (const s of state.run.sessions) counts[kindOf(s)] = (counts[kindOf(s)] || 0) + 1;
  state.shown = state.run.sessions.filter(chosen);
  counts.all = state.run.sessions.length;
  $("kinds").replaceChildren(...KINDS.filter((k) => counts[k] || k === state.kind).map((k) => element("button", {
    "aria-pressed": String(k === state.kind), onclick: () => { state.kind = k; drawList(); },
  }, `${k} ${counts[k] || 0}`)));
  $("progress").textContent = [state.run.title, state.run.note].filter(Boolean).join(" · ");
  list.show(state.shown);
  $("about").querySelector("div").replaceChildren(table(state.run.summary), table(Object.entries(state.run.settings)));
}

/** Bring the chosen session's row into sight: once, and not again when somebody scrolls away from it. */
function reveal() {
  state.seen = `${state.runId}/${state.name}`;
  list.reveal(state.shown.findIndex((s) => s.name === state.name));
}

function choose(name) {
  Object.assign(state, { name, step: 0, session: null });
  reveal();
  keep();
  refreshSession(true).catch((error) => say(error.message));
}

// -- one session ---------------------------------------------------------------------------------------------------------
function drawSession() {
  const attempts = state.session?.attempts || []; // none while they are being loaded
  const steps = Math.max(0, ...attempts.map((a) => a.steps.length));
  state.step = Math.max(0, Math.min(state.step, steps - 1));
  $("title").textContent = state.name;
  $("instruction").textContent = attempts[0]?.instruction || "";
  $("steps").replaceChildren(...Array.from({ length: steps }, (_, i) => element("button", {
    "aria-pressed": String(i === state.step), onclick: () => go(i),
  }, `step ${i + 1}`)));
  const left = $("attempts").scrollLeft;
  $("attempts").replaceChildren(...attempts.map((a, i) => attemptCard(a, attempts[i - 1])));
  $("attempts").scrollLeft = left;
}

function attemptCard(attempt, previous) {
  const step = attempt.steps[Math.min(state.step, attempt.steps.length - 1)];
  const past = state.step >= attempt.steps.length;
  const kind = !attempt.finished ? (attempt.problems.length ? "broken" : "running") : attempt.outcome !== "graded" ? "broken" : attempt.success ? "solved" : attempt.reward > 0 ? "accepted" : "failed";
  const label = { running: "being made", broken: attempt.finished ? "machinery failed" : "damaged", solved: "+1 solved", accepted: "+1 accepted, and wrong", failed: "−1 failed" }[kind];
  const end = [attempt.score === null ? "" : `score ${attempt.score}`, attempt.ended_by && `ended by ${attempt.ended_by}`,
    attempt.voids ? `${attempt.voids} void tries` : ""].filter(Boolean).join(" · ");
  return element("section", { class: "attempt", "data-attempt": attempt.number },
    element("h2", {}, `Attempt ${attempt.number}`, element("span", { class: `reward ${kind}` }, label)),
    step ? stage(attempt, step, past) : element("p", {}, "No step yet."),
    ...(step ? stepText(step, past, attempt.steps.length) : []),
    element("p", { class: "numbers" }, end),
    attempt.guidance ? element("h3", {}, previous?.guidance ? "Guidance, and what changed in it" : "Guidance") : null,
    attempt.guidance ? element("p", { class: "guidance" }, ...difference(previous?.guidance || "", attempt.guidance)) : null,
    ...(previous ? [] : givenFolds(state.session?.given)),
    fold("Judge", attempt.judge), fold("Weight update", attempt.update), textFold("Critique", attempt.critique), textFold("Textual gradient", attempt.gradient),
    fold("Seconds", attempt.seconds),
    ...attempt.problems.concat(attempt.words_error || []).map((p) => element("p", { class: "invalid" }, p)));
}

/** What the session was given of earlier ones, beside its first attempt. */
function givenFolds(given) {
  if (!given) return [];
  return [textFold("Lessons of earlier sessions", given.lessons), textFold("Examples of earlier sessions", given.examples),
    fold("Weights at its start", given.numbers)];
}

function stage(attempt, step, past) {
  const box = element("div", { class: past ? "stage past" : "stage" });
  const seen = past && (attempt.final.screen || attempt.final.observation !== null) ? attempt.final : step, name = seen.screen;
  if (!name) {
    if (seen.pictured) box.append(element("div", { class: "missing" }, "This screen is missing."));
    if (seen.observation !== null) box.append(saw(seen.observation));
    return box;
  }
  const image = element("img", { loading: "lazy", src: screenUrl(attempt.number, name), alt: past ? "last screen" : `screen before step ${step.index}` });
  image.addEventListener("load", () => {
    document.body.classList.toggle("wide", image.naturalWidth > 400); // a desktop needs more room than a small page
    if (!past) box.append(marks(step.actions, image.naturalWidth, image.naturalHeight));
  });
  image.addEventListener("error", () => box.replaceChildren(element("div", { class: "missing" }, "This screen cannot be shown.")));
  box.append(image);
  return seen.observation === null ? box : element("div", {}, box, saw(seen.observation));
}

/** A text that the agent saw. */
const saw = (text) => element("pre", { class: "saw", tabindex: "0" }, text || "(an empty text)");

function stepText(step, past, count) {
  if (past) return [element("p", { class: "numbers" }, `Ended after ${count} step${count === 1 ? "" : "s"}; this is what there was to see at the end.`)];
  const numbers = [step.tokens === null ? "" : `${step.tokens} tokens`, step.redrawn ? `drawn again ${step.redrawn}×` : "",
    step.logprob === null ? "" : `log p ${step.logprob.toFixed(2)}`,
    ...Object.entries(step.seconds).map(([k, v]) => (v === null ? "" : `${k} ${v.toFixed(2)} s`))].filter(Boolean).join(" · ");
  const sign = step.credit > 0 ? "plus" : step.credit < 0 ? "minus" : "";
  return [element("p", { class: "thought" }, step.thought), element("code", { class: "action" }, step.action_text),
    step.invalid ? element("p", { class: "invalid" }, step.invalid) : null,
    step.feedback ? element("p", { class: "feedback" }, element("b", {}, "The user: "), step.feedback) : null,
    step.now ? element("p", { class: "numbers" }, "after the update, greedily: ", element("code", {}, step.now)) : null,
    element("p", { class: "numbers" },
      step.credit === null ? null : element("span", { class: `credit ${sign}`, title: "credit r of this step" }, `r ${step.credit.toFixed(2)}`),
      step.credit === null ? numbers : ` ${numbers}`),
    step.shift ? tokens(step.shift) : null].filter(Boolean);
}

/** The reply's tokens with their probabilities in percent before and after the update; stays open from step to step. */
function tokens({ pieces, before, after }) {
  const percent = (logprob) => { const p = 100 * Math.exp(logprob); return p.toFixed(p > 99.95 || p < 0.05 ? 0 : 1); };
  const chips = pieces.map((piece, i) => {
    const change = Math.exp(after[i]) - Math.exp(before[i]), side = change > 0.0005 ? "up" : change < -0.0005 ? "down" : "";
    return element("span", { class: `token ${side}`, title: `log p ${before[i].toFixed(4)} → ${after[i].toFixed(4)}` },
      element("b", {}, piece.replaceAll("\n", "⏎") || "·"), element("i", {}, `${percent(before[i])}→${percent(after[i])}`));
  });
  const box = element("details", { class: "tokens" }, element("summary", {}, "Tokens: probability in % before → after the update"),
    element("div", {}, ...chips));
  box.open = state.tokens;
  box.addEventListener("toggle", () => { state.tokens = box.open; });
  return box;
}

const table = (rows) => element("table", {}, ...rows.map(([k, v]) => element("tr", {}, element("td", {}, k), element("td", {}, number(v)))));
const number = (v) => (typeof v === "number" ? String(Number(v.toPrecision(5))) : v === null ? "–" : String(v));

function fold(title, values) {
  const rows = Object.entries(values);
  return rows.length ? element("details", {}, element("summary", {}, title), table(rows)) : null;
}

const textFold = (title, text) => (text ? element("details", {}, element("summary", {}, title), element("p", { class: "guidance" }, text)) : null);

// -- moving about --------------------------------------------------------------------------------------------------------
function go(step) { state.step = step; drawSession(); keep(); }

function move(by) {
  const at = state.shown.findIndex((s) => s.name === state.name);
  const next = state.shown[Math.max(0, Math.min(state.shown.length - 1, at + by))];
  if (next && next.name !== state.name) choose(next.name);
}

function nextRun() {
  const runs = state.index.runs, at = runs.findIndex((r) => r.id === state.runId);
  chooseRun(runs[(at + 1) % runs.length].id);
}

const zoom = () => document.body.classList.toggle("zoom");

function chooseRun(id) { Object.assign(state, { runId: id, name: "", session: null, step: 0 }); keep(); refresh(true); }

/** The place is kept in the address, so that it survives a reload and can be sent to somebody. */
function keep() { history.replaceState(null, "", "#" + [state.runId, state.name, state.step].map(encodeURIComponent).join("/")); }

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === $("filter")) { if (event.key === "Escape" || event.key === "Enter") $("list").focus(); return; }
  if (event.target === $("runs")) return;
  const keys = { ArrowLeft: () => go(state.step - 1), ArrowRight: () => go(state.step + 1), ArrowUp: () => move(-1), ArrowDown: () => move(1),
    PageUp: () => move(-list.page()), PageDown: () => move(list.page()), Home: () => go(0), End: () => go(Infinity),
    "/": () => $("filter").focus(), z: zoom, Z: zoom, r: nextRun, R: nextRun };
  const act = keys[event.key];
  if (act) { event.preventDefault(); act(); }
});
$("filter").addEventListener("input", () => { state.filter = $("filter").value.toLowerCase(); if (state.run) drawList(); });
$("runs").addEventListener("change", () => chooseRun($("runs").value));

const [runId, name, step] = location.hash.slice(1).split("/").map(decodeURIComponent);
Object.assign(state, { runId: runId || "", name: name || "", step: Number(step) || 0 });
$("live").textContent = LIVE ? "live" : "exported";

async function live() {
  await refresh();
  if (LIVE) setTimeout(live, document.hidden ? 5 * POLL : POLL);
}
live();
