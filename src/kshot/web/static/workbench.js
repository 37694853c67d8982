// One photograph on the canvas, and what becomes of its labels: they are kept, or used as a new support.

import { Editor } from "./editor.js";
import { find, put } from "./page.js";
import { decode, encode } from "./png.js";

const CALM = 600; // milliseconds after the last stroke until it is sent

export class Workbench {
  /** onKept: called when the server has new labels. onTrouble: called with what went wrong. */
  constructor(onKept, onTrouble) {
    Object.assign(this, { onKept, onTrouble, photograph: null, isDirty: false });
    this.editor = new Editor(find("#canvas"), () => this.#changed(), (text) => this.say(text));
    this.sending = Promise.resolve();
    find("#use").onclick = () => this.#use();
    find("#put-back").onclick = () => this.reload();
    find("#none").onclick = () => this.#none();
    find("#forget").onclick = () => this.#forget();
  }

  say(text) {
    find("#said").textContent = text;
  }

  /** Put a photograph on the canvas. Flush first, for what was painted on the one before. */
  async open(session, photograph) {
    Object.assign(this, { session, photograph, opened: photograph.id, isDirty: false });
    const picture = await createImageBitmap(await session.photo(photograph.id));
    const labels = await this.#labels();
    if (this.opened !== photograph.id) return; // another was opened meanwhile
    this.#show(picture, labels);
    this.editor.canvas.focus({ preventScroll: true });
  }

  /** Take a photograph's new state; a result that came anew is shown, unless one has painted on the old one. */
  async update(photograph) {
    if (this.photograph?.id !== photograph.id) return;
    const isNew = this.photograph.stamp !== photograph.stamp;
    this.photograph = photograph;
    this.#bars();
    if (isNew && !photograph.is_labelled && !this.isDirty && photograph.steps.length) await this.reload();
  }

  /** Fetch the labels again; what was done cannot be undone then. */
  async reload() {
    if (!this.photograph) return;
    const { id } = this.photograph;
    const labels = await this.#labels();
    if (this.opened !== id) return;
    this.isDirty = false;
    this.#show(this.editor.picture, labels);
  }

  close() {
    clearTimeout(this.timer);
    Object.assign(this, { photograph: null, opened: null, isDirty: false });
  }

  /** Send what was painted, if it has not been sent. */
  async flush() {
    if (this.photograph && this.isDirty && this.isKept) await this.#send();
    await this.sending;
  }

  get hasUnsent() {
    return this.photograph !== null && this.isDirty;
  }

  /** Whether what is painted is sent by itself; a result's is when people say so. */
  get isKept() {
    return this.photograph.role === "support" || this.photograph.is_labelled;
  }

  #changed() {
    this.isDirty = true;
    this.#bars();
    if (!this.isKept) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#send(), CALM);
  }

  #send() {
    clearTimeout(this.timer);
    const { session, photograph, editor } = this;
    const { labels } = editor;
    this.isDirty = false;
    this.sending = this.sending.then(async () => {
      try {
        const png = labels.isEmpty ? null : await encode(labels.values, labels.width, labels.height);
        await (png ? session.draw(photograph.id, png) : session.erase(photograph.id));
        this.say(png ? "Labels kept." : "Nothing is painted.");
        await this.onKept();
      } catch (error) {
        this.isDirty = true;
        this.onTrouble(photograph.name, error);
      }
    });
    return this.sending;
  }

  async #use() {
    if (this.editor.labels.isEmpty) return this.say("Paint the thing first: a support shows at least one.");
    await this.#send();
    this.editor.canvas.focus({ preventScroll: true });
  }

  /** Make the photograph a negative: its labels are empty, and are kept. */
  async #none() {
    const { session, photograph } = this;
    const { id, name, width, height } = photograph;
    clearTimeout(this.timer);
    this.isDirty = false;
    try {
      await this.sending;
      await session.draw(id, await encode(new Uint8Array(width * height), width, height));
    } catch (error) {
      return this.onTrouble(name, error);
    }
    await this.onKept();
    await this.reload();
    this.editor.canvas.focus({ preventScroll: true });
  }

  async #forget() {
    await this.flush();
    await this.session.erase(this.photograph.id);
    await this.onKept();
    await this.reload();
  }

  async #labels() {
    const { photograph } = this;
    if (!photograph.is_labelled && !photograph.steps.length) return null;
    return decode(await this.session.labels(photograph.id));
  }

  #show(picture, labels) {
    const { name, width, height } = this.photograph;
    this.editor.open(picture, labels);
    put(this.editor.canvas, { ariaLabel: `Paint on ${name}` });
    this.say(`${name}, ${width} x ${height} pixels`);
    this.#bars();
  }

  #bars() {
    const { role, is_labelled: isLabelled, is_negative: isNegative, steps } = this.photograph;
    const trouble = this.photograph.problem ?? this.photograph.hint;
    put(find("#hint"), { textContent: trouble ?? "", hidden: !trouble });
    const isResult = role === "query" && !isLabelled;
    const isBare = role === "support" && !isLabelled && !this.isDirty;
    put(find("#correction"), { hidden: !isResult });
    put(find("#put-back"), { hidden: !this.isDirty || !steps.length });
    put(find("#nothing"), { hidden: !this.mayBeNegative || !((isResult && steps.length > 0) || isBare) });
    put(find("#nothing-why"), {
      textContent: isResult ? "Is all that was found wrong?" : "Or does it show what is not meant?",
    });
    put(find("#corrected"), { hidden: !isNegative && (role === "support" || !isLabelled) });
    put(find("#mended"), {
      textContent: isNegative
        ? "You said that nothing of it is here."
        : "You mended this result; it is a support now.",
    });
    put(find("#forget"), { textContent: role === "support" ? "Take that back" : "Back to the model's result" });
  }
}
