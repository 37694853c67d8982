// The page: one session of the server, shown and changed.

import { beginSession, Refusal, Session } from "./api.js";
import { isSupport, Lists, showsClass } from "./cards.js";
import { Classes } from "./classes.js";
import { EXAMPLES, fetchExample } from "./examples.js";
import { listen } from "./keys.js";
import { find, make, notice, put, report, takeDrops } from "./page.js";
import { Workbench } from "./workbench.js";

const SOON = 350; // milliseconds between looks while something is going on
const LATER = 4000; // while the server does not answer
const AT_ONCE = 2; // uploads
const LAST = "kshot session";

let session = null;
let state = { classes: [], photographs: [] };
let uploading = 0;
let timer = null;

const bench = new Workbench(look, trouble);
const { editor } = bench;
const classes = new Classes(
  (value) => ((editor.value = value), show()),
  (all) => attempt(() => setClasses(all), "The classes"),
);
const lists = new Lists(open, remove);

/* The server */

async function look() {
  clearTimeout(timer);
  if (!session) return enter(); // the server did not answer when the page was opened
  const asked = session;
  await attempt(async () => {
    const found = await session.look();
    if (asked !== session) return;
    notice(null);
    take(found);
  });
}

async function attempt(deed, name = "This session") {
  try {
    await deed();
  } catch (error) {
    trouble(name, error);
  }
}

function trouble(name, error) {
  if (error instanceof Refusal && error.status !== 404) return report(name, error.message);
  if (error instanceof Refusal) return report(name, `${error.message} Reload the page if that does not help.`);
  if (!(error instanceof TypeError)) throw error;
  notice("The server does not answer. Is kshot serve still running?");
  clearTimeout(timer);
  timer = setTimeout(look, LATER);
}

/** Show a new state, and look again soon while something is going on. */
function take(found) {
  clearTimeout(timer);
  const isBusy = found.photographs.some(({ status }) => status === "queued" || status === "working");
  if (isBusy) timer = setTimeout(look, SOON);
  const haveColoursChanged = JSON.stringify(state.classes) !== JSON.stringify(found.classes);
  state = found;
  classes.show(state.classes);
  editor.value = classes.value;
  if (haveColoursChanged) editor.setClasses(state.classes);
  bench.mayBeNegative = state.takes_negatives && state.photographs.some(showsClass);
  const open = state.photographs.find(({ id }) => id === bench.photograph?.id);
  if (open) attempt(() => bench.update(open), open.name);
  show();
}

/* What one sees */

function show() {
  const supports = state.photographs.filter(isSupport);
  const queries = state.photographs.filter(({ role }) => role === "query");
  lists.show(session, state, classes.value, bench.photograph?.id);
  put(find("#workbench"), { hidden: !bench.photograph });
  put(find("#start"), { hidden: Boolean(bench.photograph || supports.length) });
  put(find("#found"), { hidden: !queries.length });
  put(find("#query-start"), { hidden: queries.length > 0 });
  const done = queries.filter(({ status }) => ["done", "labelled", "failed"].includes(status)).length;
  put(find("#bar"), { max: Math.max(1, queries.length), value: done });
  put(find("#progress"), { textContent: progress(done, queries.length, supports) });
  const download = find("#download");
  if (state.photographs.some(({ status }) => status === "done" || status === "labelled")) download.href = session.archive;
  else download.removeAttribute("href");
}

function progress(done, all, supports) {
  const sending = uploading ? ` Sending ${uploading} …` : "";
  if (!supports.some(showsClass)) return `Label a photograph to begin.${sending}`;
  return `${done} of ${all} segmented.${sending}`;
}

async function open(id) {
  const photograph = state.photographs.find((one) => one.id === id);
  if (!photograph || id === bench.photograph?.id || !mayLeave()) return;
  await bench.flush();
  const opening = attempt(() => bench.open(session, photograph), photograph.name);
  show(); // now, for a canvas that is hidden has no size and takes no focus
  await opening;
  show();
  find("#canvas").scrollIntoView({ block: "nearest" });
}

const mayLeave = () => !bench.hasUnsent || bench.isKept || confirm("Leave this result? What you painted on it is not used yet.");

/* What one does */

async function add(role, files, mask) {
  const waiting = [...files];
  await entered;
  uploading += waiting.length;
  show();
  const added = [];
  const sendNext = async () => {
    for (let file = waiting.shift(); file; file = waiting.shift()) {
      await attempt(async () => added.push((await session.add(role, file, mask)).id), file.name);
      uploading -= 1;
      await look();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, sendNext));
  if (role === "support" && added.length) await open(added[0]);
}

async function remove(id) {
  const { name, is_labelled: isLabelled } = state.photographs.find((one) => one.id === id);
  if (isLabelled && !confirm(`Remove ${name} and its labels?`)) return;
  if (bench.photograph?.id === id) bench.close();
  await attempt(() => session.remove(id), name);
  await look();
}

async function setClasses(all) {
  await entered;
  await bench.flush();
  const isOneGone = all.length < state.classes.length;
  take(await session.setClasses(all));
  if (isOneGone) await bench.reload(); // what was painted of it is gone too
}

async function tryExample(example) {
  await attempt(async () => {
    const { photo, mask } = await fetchExample(example);
    await add("support", [photo], mask);
    await add("query", [photo]);
  }, example.name);
}

/* Sessions: the last one is remembered, and its id is in the address. */

async function enter() {
  const known = location.hash.slice(1) || localStorage.getItem(LAST);
  try {
    session = known ? new Session(known) : await beginSession();
    take(await session.look());
  } catch (error) {
    if (!(error instanceof Refusal)) return trouble("", error);
    session = await beginSession();
    if (location.hash) notice("That session has expired, or the server was started anew. This is a new one.");
    take(await session.look());
  }
  localStorage.setItem(LAST, session.id);
  history.replaceState(null, "", `#${session.id}`);
  const first = state.photographs.find(isSupport);
  if (first) await open(first.id);
  await look();
}

async function beginAnew() {
  await entered;
  if (state.photographs.length && !confirm("Forget these photographs and labels, and begin anew?")) return;
  bench.close();
  await attempt(() => session.end());
  localStorage.removeItem(LAST);
  history.replaceState(null, "", location.pathname);
  await attempt(enter);
}

function choose(name, value) {
  find(`input[name=${name}][value=${value}]`).checked = true;
  if (name === "tool") editor.setTool(value);
  else editor.mode = value;
}

function resize(factor) {
  const slider = find("#size");
  slider.value = Math.max(Number(slider.value) * factor, Number(slider.value) + Math.sign(factor - 1));
  slider.oninput();
}

function wire() {
  find("#support-files").onchange = ({ target }) => add("support", [...target.files]).then(() => (target.value = ""));
  find("#query-files").onchange = ({ target }) => add("query", [...target.files]).then(() => (target.value = ""));
  takeDrops(find("#editor"), (files) => add("support", files));
  takeDrops(find("#queries"), (files) => add("query", files));
  for (const name of ["tool", "mode"]) {
    for (const radio of document.querySelectorAll(`input[name=${name}]`)) radio.onchange = () => choose(name, radio.value);
  }
  find("#size").oninput = () => ((editor.size = Number(find("#size").value)), editor.draw());
  find("#undo").onclick = () => editor.undo();
  find("#redo").onclick = () => editor.redo();
  find("#zoom-in").onclick = () => editor.zoom(1.25);
  find("#zoom-out").onclick = () => editor.zoom(0.8);
  find("#zoom-fit").onclick = () => editor.fit();
  find("#sort").onchange = show;
  find("#views").onchange = show;
  find("#problems-clear").onclick = () => {
    find("#problem-list").replaceChildren();
    find("#problems").hidden = true;
  };
  find("#new-session").onclick = beginAnew;
  const help = () => find("#help").showModal();
  find("#help-open").onclick = help;
  listen(find("#editor"), editor, { choose, size: resize, pick: (place) => classes.pick(place), help });
  for (const example of EXAMPLES) {
    const [width, height] = example.size;
    const picture = make("img", { src: `static/examples/${example.photo}`, alt: "", width, height });
    const button = make("button", { type: "button", onclick: () => tryExample(example) }, picture, example.name);
    find("#examples").append(make("li", {}, button));
  }
  addEventListener("beforeunload", (event) => bench.hasUnsent && event.preventDefault());
}

wire();
const entered = attempt(enter); // what people do before that waits for it
