// The page: shows and changes one session of the server.

import { beginSession, ApiError, Session } from "./api.js";
import { isSupport, Lists, showsClass } from "./cards.js";
import { Classes } from "./classes.js";
import { EXAMPLES, fetchExample } from "./examples.js";
import { bindKeys } from "./keys.js";
import { find, make, notice, put, report, takeDrops } from "./page.js";
import { Workbench } from "./workbench.js";

const SOON = 350; // milliseconds between refreshes while images are being segmented
const LATER = 4000; // milliseconds, while the server does not respond
const PARALLEL_UPLOADS = 2;
const LAST_SESSION = "kshot session";

let session = null;
let state = { classes: [], images: [] };
let uploading = 0;
let timer = null;

const bench = new Workbench(refresh, trouble);
const { editor } = bench;
const classes = new Classes(
  (value) => ((editor.value = value), show()),
  (all) => attempt(() => setClasses(all), "The classes"),
);
const lists = new Lists(open, remove);

/* The server */

async function refresh() {
  clearTimeout(timer);
  if (!session) return enter(); // the server did not respond when the page was opened
  const asked = session;
  await attempt(async () => {
    const found = await session.state();
    if (asked !== session) return;
    notice(null);
    take(found);
  });
}

async function attempt(action, name = "This session") {
  try {
    await action();
  } catch (error) {
    trouble(name, error);
  }
}

function trouble(name, error) {
  if (error instanceof ApiError && error.status !== 404) return report(name, error.message);
  if (error instanceof ApiError) return report(name, `${error.message} Reload the page if this persists.`);
  if (!(error instanceof TypeError)) throw error;
  notice("The server does not respond. Is `kshot serve` still running?");
  clearTimeout(timer);
  timer = setTimeout(refresh, LATER);
}

/** Show a new state and refresh again soon while images are being segmented. */
function take(found) {
  clearTimeout(timer);
  const isBusy = found.images.some(({ status }) => status === "queued" || status === "running");
  if (isBusy) timer = setTimeout(refresh, SOON);
  const haveColoursChanged = JSON.stringify(state.classes) !== JSON.stringify(found.classes);
  state = found;
  classes.show(state.classes);
  editor.value = classes.value;
  if (haveColoursChanged) editor.setClasses(state.classes);
  bench.mayBeNegative = state.supports_negatives && state.images.some(showsClass);
  const open = state.images.find(({ id }) => id === bench.image?.id);
  if (open) attempt(() => bench.update(open), open.name);
  show();
}

/* Display */

function show() {
  const supports = state.images.filter(isSupport);
  const queries = state.images.filter(({ role }) => role === "query");
  lists.show(session, state, classes.value, bench.image?.id);
  put(find("#workbench"), { hidden: !bench.image });
  put(find("#start"), { hidden: Boolean(bench.image || supports.length) });
  put(find("#found"), { hidden: !queries.length });
  put(find("#query-start"), { hidden: queries.length > 0 });
  const done = queries.filter(({ status }) => ["done", "labelled", "failed"].includes(status)).length;
  put(find("#bar"), { max: Math.max(1, queries.length), value: done });
  put(find("#progress"), { textContent: progress(done, queries.length, supports) });
  const download = find("#download");
  if (state.images.some(({ status }) => status === "done" || status === "labelled")) download.href = session.archive;
  else download.removeAttribute("href");
}

function progress(done, all, supports) {
  const sending = uploading ? ` Sending ${uploading} …` : "";
  if (!supports.some(showsClass)) return `Label an image to start.${sending}`;
  return `${done} of ${all} segmented.${sending}`;
}

async function open(id) {
  const image = state.images.find((one) => one.id === id);
  if (!image || id === bench.image?.id || !mayLeave()) return;
  await bench.flush();
  const opening = attempt(() => bench.open(session, image), image.name);
  show(); // before opening: a hidden canvas has no size and cannot get the focus
  await opening;
  show();
  find("#canvas").scrollIntoView({ block: "nearest" });
}

const mayLeave = () => !bench.hasUnsent || bench.isAutoSaved || confirm("Leave this result? Your changes have not been used yet.");

/* Actions */

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
      await refresh();
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_UPLOADS }, sendNext));
  if (role === "support" && added.length) await open(added[0]);
}

async function remove(id) {
  const { name, is_labelled: isLabelled } = state.images.find((one) => one.id === id);
  if (isLabelled && !confirm(`Remove ${name} and its labels?`)) return;
  if (bench.image?.id === id) bench.close();
  await attempt(() => session.remove(id), name);
  await refresh();
}

async function setClasses(all) {
  await entered;
  await bench.flush();
  const isOneGone = all.length < state.classes.length;
  take(await session.setClasses(all));
  if (isOneGone) await bench.reload(); // its labels were removed too
}

async function tryExample(example) {
  await attempt(async () => {
    const { image, mask } = await fetchExample(example);
    await add("support", [image], mask);
    await add("query", [image]);
  }, example.name);
}

/* Sessions: the last id is kept in the browser and in the URL. */

async function enter() {
  const known = location.hash.slice(1) || localStorage.getItem(LAST_SESSION);
  try {
    session = known ? new Session(known) : await beginSession();
    take(await session.state());
  } catch (error) {
    if (!(error instanceof ApiError)) return trouble("", error);
    session = await beginSession();
    if (location.hash) notice("That session has expired or the server was restarted. This is a new session.");
    take(await session.state());
  }
  localStorage.setItem(LAST_SESSION, session.id);
  history.replaceState(null, "", `#${session.id}`);
  const first = state.images.find(isSupport);
  if (first) await open(first.id);
  await refresh();
}

async function startNewSession() {
  await entered;
  if (state.images.length && !confirm("Delete these images and labels and start a new session?")) return;
  bench.close();
  await attempt(() => session.end());
  localStorage.removeItem(LAST_SESSION);
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
  find("#new-session").onclick = startNewSession;
  const help = () => find("#help").showModal();
  find("#help-open").onclick = help;
  bindKeys(find("#editor"), editor, { choose, size: resize, pick: (place) => classes.pick(place), help });
  for (const example of EXAMPLES) {
    const [width, height] = example.size;
    const thumbnail = make("img", { src: `static/examples/${example.image}`, alt: "", width, height });
    const button = make("button", { type: "button", onclick: () => tryExample(example) }, thumbnail, example.name);
    find("#examples").append(make("li", {}, button));
  }
  addEventListener("beforeunload", (event) => bench.hasUnsent && event.preventDefault());
}

wire();
const entered = attempt(enter); // user actions wait for it
