// The lists of images: supports in a strip, queries as cards with their results.

import { find, keep, make, put } from "./page.js";

const SIDE = 480;
const WORDS = {
  waiting: "waiting for a labelled image",
  queued: "queued",
  running: "segmenting …",
  done: "",
  labelled: "corrected: used as support",
  negative: "object not present",
  failed: "failed",
};

const SUPPORT_WORDS = [
  [(one) => one.problem, "unusable: open to see why"],
  [(one) => one.hint, "poor support: open to see why"],
  [(one) => one.is_negative, WORDS.negative],
  [(one) => one.status === "unlabelled", "not labelled yet"],
];

export class Lists {
  /** open: called with the id of an image to label. remove: called with the id of an image to delete. */
  constructor(open, remove) {
    Object.assign(this, { open, remove });
  }

  show(session, state, value, openId) {
    Object.assign(this, { session, value, openId });
    this.colours = state.classes.map(({ colour }) => colour.slice(1)).join("");
    const supports = state.images.filter(isSupport);
    const queries = state.images.filter(({ role }) => role === "query");
    keep(find("#supports"), supports, (one) => this.#create(one), (element, one) => this.#support(element, one));
    const sorted = find("#sort").value === "unsure" ? [...queries].sort(byConfidence) : queries;
    keep(find("#cards"), sorted, (one) => this.#create(one), (element, one) => this.#card(element, one));
    for (const name of ["first_pass", "second_pass"]) {
      const has = queries.some(({ maps }) => maps.includes(name));
      find(`#views input[value=${name}]`).parentElement.hidden = !has;
    }
  }

  #create({ id, name }) {
    return make(
      "li", {},
      make(
        "button", { type: "button", className: "look", onclick: () => this.open(id) },
        make("img", { alt: "", loading: "lazy", decoding: "async" }),
      ),
      make("span", { className: "name", title: name }, name),
      make("span", { className: "state" }),
      make("button", { type: "button", className: "quiet remove", ariaLabel: `Remove ${name}`, onclick: () => this.remove(id) }, "×"),
    );
  }

  #support(element, one) {
    const state = SUPPORT_WORDS.find(([applies]) => applies(one))?.[1] ?? "";
    this.#fill(element, one, one.status === "unlabelled" ? "image" : "overlay", state, "Label");
  }

  #card(element, one) {
    let state = WORDS[one.is_negative ? "negative" : one.status];
    if (one.status === "done") state = `${Math.round(100 * one.confidence)} % confidence`;
    else if (one.is_stale) state = `stale, ${state}`;
    if (one.problem) state = one.problem;
    this.#fill(element, one, shown(one, this.value), state, "Open");
    element.classList.toggle("stale", one.is_stale);
    element.style.setProperty("--sure", one.status === "done" ? one.confidence : 0);
  }

  #fill(element, one, view, state, verb) {
    const [button, , text] = element.children;
    const query = { side: SIDE, value: this.value, v: `${one.revision}.${this.colours}` };
    const address = this.session.view(one.id, view, query);
    const thumbnail = button.firstElementChild;
    if (thumbnail.getAttribute("src") !== address) thumbnail.src = address;
    put(button, { ariaLabel: `${verb} ${one.name}${state ? `, ${state}` : ""}` });
    button.setAttribute("aria-pressed", String(one.id === this.openId));
    put(text, { textContent: state });
    element.classList.toggle("failed", one.status === "failed");
  }
}

export const isSupport = (one) => one.role === "support" || one.is_labelled;
export const showsClass = (one) => one.is_labelled && !one.is_negative;

/** The selected view, or the image if that view does not exist. */
function shown(one, value) {
  const chosen = find("#views input:checked").value;
  if (one.is_labelled) return chosen === "image" ? "image" : "overlay";
  if (chosen === "overlay") return one.maps.length ? "overlay" : "image";
  return one.maps.includes(chosen) && one.class_values.includes(value) ? chosen : "image";
}

function byConfidence(a, b) {
  const rank = (one) => (one.confidence === null ? 2 : one.confidence);
  return rank(a) - rank(b);
}
