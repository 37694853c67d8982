// The list of classes: select, rename, recolour, add, remove.

import { find, keep, make, put } from "./page.js";

const COLOURS = [
  "#e61e3c", "#0082dc", "#fab400", "#00a05a", "#9646c8", "#00bec8", "#f06e1e", "#e65aaa", "#789600", "#825a3c",
];

export class Classes {
  all = [];
  value = 1;

  /** onChoose: called with the value of the selected class. onChange: called with the new list. */
  constructor(onChoose, onChange) {
    Object.assign(this, { onChoose, onChange, list: find("#classes") });
    find("#class-add").onclick = () => this.#add();
  }

  show(classes) {
    this.all = classes;
    if (!classes.some(({ value }) => value === this.value)) this.value = classes[0].value;
    const items = classes.map((one) => ({ ...one, id: String(one.value) }));
    const rows = this.rows ?? (this.rows = this.list.appendChild(make("div", { className: "class-rows" })));
    keep(rows, items, (item) => this.#create(item.value), (element, item) => this.#update(element, item));
  }

  pick(place) {
    if (this.all[place]) this.#choose(this.all[place].value);
  }

  #choose(value) {
    this.value = value;
    this.show(this.all);
    this.onChoose(value);
  }

  #create(value) {
    const change = (what) => (event) => this.#edit(value, { [what]: event.target.value.trim() });
    return make(
      "div", { className: "class" },
      make("input", { type: "radio", name: "class", onchange: () => this.#choose(value) }),
      make("input", { type: "color", onchange: change("colour") }),
      make("input", { type: "text", maxLength: 60, spellcheck: false, onchange: change("name") }),
      make("button", { type: "button", className: "quiet remove", onclick: () => this.#remove(value) }, "×"),
    );
  }

  #update(element, { value, name, colour }) {
    const [radio, swatch, text, remove] = element.children;
    put(radio, { checked: value === this.value, ariaLabel: `Paint ${name}` });
    put(swatch, { value: colour, ariaLabel: `Colour of ${name}` });
    if (document.activeElement !== text) put(text, { value: name });
    put(text, { ariaLabel: "Name of the class" });
    text.size = Math.max(6, text.value.length);
    put(remove, { ariaLabel: `Remove class ${name}` });
    remove.hidden = radio.hidden = this.all.length === 1;
    element.classList.toggle("chosen", value === this.value);
  }

  #edit(value, change) {
    if (!Object.values(change)[0]) return this.show(this.all);
    this.onChange(this.all.map((one) => (one.value === value ? { ...one, ...change } : one)));
  }

  async #add() {
    const value = Math.max(...this.all.map((one) => one.value)) + 1;
    const names = new Set(this.all.map((one) => one.name));
    let number = this.all.length + 1;
    while (names.has(`class ${number}`)) number++;
    const colour = COLOURS[(value - 1) % COLOURS.length];
    await this.onChange([...this.all, { value, name: `class ${number}`, colour }]);
    if (this.all.some((one) => one.value === value)) this.#choose(value);
  }

  #remove(value) {
    const { name } = this.all.find((one) => one.value === value);
    if (!confirm(`Remove "${name}" and all its labels?`)) return;
    this.onChange(this.all.filter((one) => one.value !== value));
  }
}
