// The lists of photographs: labelled ones in a strip, the others as cards with their results.

import { find, keep, make, put } from "./page.js";

const SIDE = 480;
const WORDS = {
  waiting: "waits for a labelled photograph",
  queued: "queued",
  working: "segmenting …",
  done: "",
  labelled: "mended: used as a support",
  negative: "nothing of it is here",
  failed: "failed",
};

const SUPPORT_WORDS = [
  [(one) => one.problem, "cannot be used: open it"],
  [(one) => one.hint, "hard to find: open it"],
  [(one) => one.is_negative, WORDS.negative],
  [(one) => one.status === "unlabelled", "not labelled yet"],
];

export class Lists {
  /** open: called with a photograph to paint on. remove: called with one to forget. */
  constructor(open, remove) {
    Object.assign(this, { open, remove });
  }

  show(session, state, value, openId) {
    Object.assign(this, { session, value, openId });
    this.colours = state.classes.map(({ colour }) => colour.slice(1)).join("");
    const supports = state.photographs.filter(isSupport);
    const queries = state.photographs.filter(({ role }) => role === "query");
    keep(find("#supports"), supports, (one) => this.#create(one), (element, one) => this.#support(element, one));
    const sorted = find("#sort").value === "unsure" ? [...queries].sort(bySureness) : queries;
    keep(find("#cards"), sorted, (one) => this.#create(one), (element, one) => this.#card(element, one));
    for (const step of ["first_pass", "second_pass"]) {
      const has = queries.some(({ steps }) => steps.includes(step));
      find(`#views input[value=${step}]`).parentElement.hidden = !has;
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
    this.#fill(element, one, one.status === "unlabelled" ? "photo" : "overlay", state, "Label");
  }

  #card(element, one) {
    let state = WORDS[one.is_negative ? "negative" : one.status];
    if (one.status === "done") state = `${Math.round(100 * one.confidence)} % sure`;
    else if (one.is_stale) state = `stale, ${state}`;
    if (one.problem) state = one.problem;
    this.#fill(element, one, shown(one, this.value), state, "Open");
    element.classList.toggle("stale", one.is_stale);
    element.style.setProperty("--sure", one.status === "done" ? one.confidence : 0);
  }

  #fill(element, one, kind, state, verb) {
    const [look, , text] = element.children;
    const query = { side: SIDE, value: this.value, v: `${one.stamp}.${this.colours}` };
    const address = this.session.view(one.id, kind, query);
    const picture = look.firstElementChild;
    if (picture.getAttribute("src") !== address) picture.src = address;
    put(look, { ariaLabel: `${verb} ${one.name}${state ? `, ${state}` : ""}` });
    look.setAttribute("aria-pressed", String(one.id === this.openId));
    put(text, { textContent: state });
    element.classList.toggle("failed", one.status === "failed");
  }
}

export const isSupport = (one) => one.role === "support" || one.is_labelled;
export const showsClass = (one) => one.is_labelled && !one.is_negative;

/** The view that is chosen, or the photograph where there is none. */
function shown(one, value) {
  const chosen = find("#views input:checked").value;
  if (one.is_labelled) return chosen === "photo" ? "photo" : "overlay";
  if (chosen === "overlay") return one.steps.length ? "overlay" : "photo";
  return one.steps.includes(chosen) && one.values.includes(value) ? chosen : "photo";
}

function bySureness(a, b) {
  const rank = (one) => (one.confidence === null ? 2 : one.confidence);
  return rank(a) - rank(b);
}
