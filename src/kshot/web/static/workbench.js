// The image on the canvas. Labels of supports are saved automatically, corrected results on request.

import { Editor } from "./editor.js";
import { find, put } from "./page.js";
import { decode, encode } from "./png.js";

const CALM = 600; // milliseconds after the last stroke until the labels are sent

export class Workbench {
  /** onSaved: called when the server has new labels. onError: called with the name and the error. */
  constructor(onSaved, onError) {
    Object.assign(this, { onSaved, onError, image: null, isDirty: false });
    this.editor = new Editor(find("#canvas"), () => this.#changed(), (text) => this.say(text));
    this.sending = Promise.resolve();
    find("#use").onclick = () => this.#use();
    find("#put-back").onclick = () => this.reload();
    find("#none").onclick = () => this.#setNegative();
    find("#forget").onclick = () => this.#deleteLabels();
  }

  say(text) {
    find("#said").textContent = text;
  }

  /** Open an image. Call flush() first to send the labels of the previous one. */
  async open(session, image) {
    Object.assign(this, { session, image, opened: image.id, isDirty: false });
    const pixels = await createImageBitmap(await session.image(image.id));
    const labels = await this.#labels();
    if (this.opened !== image.id) return; // another image was opened meanwhile
    this.#show(pixels, labels);
    this.editor.canvas.focus({ preventScroll: true });
  }

  /** Update the image's state; a new result is shown unless the user has changed the old one. */
  async update(image) {
    if (this.image?.id !== image.id) return;
    const isNew = this.image.revision !== image.revision;
    this.image = image;
    this.#bars();
    if (isNew && !image.is_labelled && !this.isDirty && image.maps.length) await this.reload();
  }

  /** Fetch the labels again; clears the undo history. */
  async reload() {
    if (!this.image) return;
    const { id } = this.image;
    const labels = await this.#labels();
    if (this.opened !== id) return;
    this.isDirty = false;
    this.#show(this.editor.image, labels);
  }

  close() {
    clearTimeout(this.timer);
    Object.assign(this, { image: null, opened: null, isDirty: false });
  }

  /** Send unsent labels. */
  async flush() {
    if (this.image && this.isDirty && this.isAutoSaved) await this.#send();
    await this.sending;
  }

  get hasUnsent() {
    return this.image !== null && this.isDirty;
  }

  /** Whether labels are sent automatically; those of a result are sent on request. */
  get isAutoSaved() {
    return this.image.role === "support" || this.image.is_labelled;
  }

  #changed() {
    this.isDirty = true;
    this.#bars();
    if (!this.isAutoSaved) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#send(), CALM);
  }

  #send() {
    clearTimeout(this.timer);
    const { session, image, editor } = this;
    const { labels } = editor;
    this.isDirty = false;
    this.sending = this.sending.then(async () => {
      try {
        const png = labels.isEmpty ? null : await encode(labels.values, labels.width, labels.height);
        await (png ? session.setLabels(image.id, png) : session.deleteLabels(image.id));
        this.say(png ? "Labels saved." : "Labels removed.");
        await this.onSaved();
      } catch (error) {
        this.isDirty = true;
        this.onError(image.name, error);
      }
    });
    return this.sending;
  }

  async #use() {
    if (this.editor.labels.isEmpty) return this.say("Paint the object first: a support image needs at least one.");
    await this.#send();
    this.editor.canvas.focus({ preventScroll: true });
  }

  /** Make the image a negative one by saving empty labels. */
  async #setNegative() {
    const { session, image } = this;
    const { id, name, width, height } = image;
    clearTimeout(this.timer);
    this.isDirty = false;
    try {
      await this.sending;
      await session.setLabels(id, await encode(new Uint8Array(width * height), width, height));
    } catch (error) {
      return this.onError(name, error);
    }
    await this.onSaved();
    await this.reload();
    this.editor.canvas.focus({ preventScroll: true });
  }

  async #deleteLabels() {
    await this.flush();
    await this.session.deleteLabels(this.image.id);
    await this.onSaved();
    await this.reload();
  }

  async #labels() {
    const { image } = this;
    if (!image.is_labelled && !image.maps.length) return null;
    return decode(await this.session.labels(image.id));
  }

  #show(pixels, labels) {
    const { name, width, height } = this.image;
    this.editor.open(pixels, labels);
    put(this.editor.canvas, { ariaLabel: `Paint on ${name}` });
    this.say(`${name}, ${width} x ${height} pixels`);
    this.#bars();
  }

  #bars() {
    const { role, is_labelled: isLabelled, is_negative: isNegative, maps } = this.image;
    const trouble = this.image.problem ?? this.image.hint;
    put(find("#hint"), { textContent: trouble ?? "", hidden: !trouble });
    const isResult = role === "query" && !isLabelled;
    const isBare = role === "support" && !isLabelled && !this.isDirty;
    put(find("#correction"), { hidden: !isResult });
    put(find("#put-back"), { hidden: !this.isDirty || !maps.length });
    put(find("#nothing"), { hidden: !this.mayBeNegative || !((isResult && maps.length > 0) || isBare) });
    put(find("#nothing-why"), {
      textContent: isResult ? "No object in this image?" : "Or does this image not show the object?",
    });
    put(find("#corrected"), { hidden: !isNegative && (role === "support" || !isLabelled) });
    put(find("#mended"), {
      textContent: isNegative
        ? "You marked this image as negative: the object is not present."
        : "You corrected this result; it is now a support image.",
    });
    put(find("#forget"), { textContent: role === "support" ? "Unmark as negative" : "Restore the prediction" });
  }
}
