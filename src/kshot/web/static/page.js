// DOM helpers.

export const find = (selector) => document.querySelector(selector);

/** Make an element: make("button", { type: "button", onclick }, "Text", child). */
export function make(kind, properties = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Set only properties that differ, so that images are not reloaded and text is not announced again. */
export function put(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (element[name] !== value) element[name] = value;
  }
}

/** Synchronize a list's elements with items that have an id. */
export function keep(list, items, create, update) {
  const known = new Map([...list.children].map((element) => [element.dataset.id, element]));
  items.forEach((item, place) => {
    let element = known.get(item.id);
    known.delete(item.id);
    if (!element) {
      element = create(item);
      element.dataset.id = item.id;
    }
    update(element, item);
    if (list.children[place] !== element) list.insertBefore(element, list.children[place] ?? null);
  });
  for (const element of known.values()) element.remove();
}

export function report(name, reason) {
  find("#problem-list").append(make("li", {}, make("strong", {}, name), `: ${reason}`));
  find("#problems").hidden = false;
}

export function notice(text) {
  put(find("#notice"), { textContent: text ?? "", hidden: !text });
}

/** Accept files dropped on an element. */
export function takeDrops(element, onFiles) {
  let depth = 0; // a child is entered before its parent is left
  const mark = (change) => element.classList.toggle("dropping", (depth = Math.max(0, depth + change)) > 0);
  element.addEventListener("dragenter", () => mark(1));
  element.addEventListener("dragleave", () => mark(-1));
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(-depth);
    onFiles([...event.dataTransfer.files]);
  });
}
