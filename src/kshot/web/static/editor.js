// The labelling canvas: tools, pointers and keyboard actions. It does not talk to the server.

import { Labels } from "./labels.js";
import { Layer } from "./layer.js";
import { Viewport } from "./viewport.js";

const OPACITY = 0.5;
const CLOSE_ENOUGH = 10; // CSS pixels to a polygon's first corner
const PEN_ERASER = 32; // of PointerEvent.buttons

export class Editor {
  tool = "brush";
  mode = "paint";
  size = 30; // diameter in image pixels
  value = 1;
  classes = [];
  isHidden = false;

  /** onChange: called after each step. say: shows a status line. */
  constructor(canvas, onChange, say) {
    Object.assign(this, { canvas, onChange, say });
    this.context = canvas.getContext("2d");
    this.viewport = new Viewport();
    this.pointers = new Map();
    this.stroke = null; // in progress: a stroke, a box, a pan or a pinch
    this.corners = []; // of a polygon
    this.cursor = null; // in image pixels
    this.isSpaceDown = false;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.#up(event));
    canvas.addEventListener("pointerleave", () => this.#leave());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("dblclick", () => this.closePolygon());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("blur", () => this.#endKeyStroke());
    new ResizeObserver(() => this.#resize()).observe(canvas);
  }

  open(image, labels) {
    this.image = image;
    this.labels = new Labels(image.width, image.height, labels ?? undefined);
    this.layer = new Layer(this.labels);
    this.layer.colour(this.classes);
    this.stroke = null;
    this.corners = [];
    this.cursor = null;
    this.#resize();
  }

  setClasses(classes) {
    this.classes = classes;
    this.layer?.colour(classes);
    this.draw();
  }

  setTool(tool) {
    this.cancel();
    this.tool = tool;
    this.canvas.dataset.tool = tool;
    this.draw();
  }

  undo() {
    if (this.corners.length) this.corners.pop();
    else this.#changed(this.labels?.undo());
    this.draw();
  }

  redo() {
    this.#changed(this.labels?.redo());
  }

  fit() {
    if (this.image) this.viewport.fit(this.canvas, this.image.width, this.image.height);
    this.draw();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    this.viewport.zoom(factor, x, y);
    this.draw();
  }

  /** Cancel an unfinished stroke or shape. */
  cancel() {
    this.#cancelStroke();
    this.corners = [];
    this.draw();
  }

  closePolygon() {
    const corners = this.corners;
    this.corners = [];
    if (corners.length > 2) {
      this.labels.begin();
      this.labels.polygon(corners, this.#paint());
      this.#finish();
      this.say("Polygon filled.");
    }
    this.draw();
  }

  /** Move the keyboard cursor by CSS pixels; paints during a stroke. */
  step(dx, dy) {
    if (!this.image) return;
    const from = this.cursor ?? [this.image.width / 2, this.image.height / 2];
    const to = [from[0] + dx / this.viewport.scale, from[1] + dy / this.viewport.scale];
    this.cursor = [
      Math.min(this.image.width - 0.5, Math.max(0.5, to[0])), Math.min(this.image.height - 0.5, Math.max(0.5, to[1])),
    ];
    this.showsCross = true;
    if (this.stroke?.kind === "line") this.#lineTo(this.cursor);
    this.draw();
  }

  /** The keyboard equivalent of a click: start or end a stroke, set a corner. */
  act() {
    if (!this.image) return;
    if (!this.cursor) return this.step(0, 0);
    if (this.tool === "polygon") return this.#corner(this.cursor);
    if (this.stroke) {
      this.#endStroke();
      this.say(this.tool === "box" ? "Box filled." : "Stroke ended.");
    } else if (this.tool === "brush" || this.tool === "box") {
      this.#beginStroke(this.cursor, true);
      this.say(this.tool === "box" ? "First corner set." : "Stroke started: arrow keys paint.");
    }
  }

  #paint(event) {
    const erases = this.mode === "erase" || (event && event.buttons & PEN_ERASER);
    return erases ? 0 : this.value;
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #down(event) {
    if (!this.image) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    this.showsCross = false;
    this.pointers.set(event.pointerId, this.#at(event));
    if (this.pointers.size === 2) {
      this.#cancelStroke();
      if (this.tool === "polygon") this.corners.pop(); // the first finger's
      this.stroke = { kind: "pinch" };
      return;
    }
    if (this.pointers.size > 2 || event.button === 2) return;
    const point = (this.cursor = this.viewport.toImage(...this.#at(event)));
    if (this.tool === "move" || event.button === 1 || this.isSpaceDown) this.stroke = { kind: "pan" };
    else if (this.tool === "polygon") this.#corner(point);
    else this.#beginStroke(point, false, event);
    event.preventDefault();
  }

  #move(event) {
    if (!this.image) return;
    const now = this.#at(event);
    const before = this.pointers.get(event.pointerId);
    if (before && this.stroke?.kind === "pan") this.viewport.move(now[0] - before[0], now[1] - before[1]);
    if (before && this.stroke?.kind === "pinch") this.#pinch(event.pointerId, before, now);
    if (before) this.pointers.set(event.pointerId, now);
    this.cursor = this.viewport.toImage(...now);
    this.showsCross = false;
    if (before && this.stroke?.kind === "line") {
      const passed = event.getCoalescedEvents?.() ?? [];
      for (const one of passed.length ? passed : [event]) this.#lineTo(this.viewport.toImage(...this.#at(one)));
    }
    this.draw();
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (event.type === "pointercancel") this.cancel();
    else if (this.stroke && !this.stroke.byKeys) this.#endStroke();
    if (event.pointerType === "touch") this.cursor = null;
    this.draw();
  }

  #leave() {
    if (!this.pointers.size && !this.stroke) this.cursor = null;
    this.draw();
  }

  #wheel(event) {
    if (!this.image) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), ...this.#at(event));
  }

  #pinch(id, before, now) {
    const other = [...this.pointers].find(([one]) => one !== id)[1];
    const distance = (a, b) => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
    this.viewport.move((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
    this.viewport.zoom(distance(now, other) / distance(before, other), ...middle);
  }

  #beginStroke(point, byKeys, event) {
    this.labels.begin();
    const kind = this.tool === "box" ? "box" : "line";
    this.stroke = { kind, from: point, last: point, value: this.#paint(event), byKeys };
    if (kind === "line") this.#lineTo(point);
    this.draw();
  }

  #lineTo(point) {
    const { last, value } = this.stroke;
    this.layer.update(this.labels.line(...last, ...point, this.size / 2, value));
    this.stroke.last = point;
  }

  #endStroke() {
    const { kind, from, value } = this.stroke;
    this.stroke = null;
    if (kind === "box") this.labels.box(...from, ...this.cursor, value);
    if (kind === "box" || kind === "line") this.#finish();
  }

  #cancelStroke() {
    const box = this.labels?.cancel();
    if (box) this.layer.update(box);
    this.stroke = null;
  }

  #endKeyStroke() {
    if (this.stroke?.byKeys) this.#endStroke();
  }

  #corner(point) {
    const first = this.corners[0];
    const reach = CLOSE_ENOUGH / this.viewport.scale;
    const isBack = first && this.corners.length > 2 && Math.hypot(point[0] - first[0], point[1] - first[1]) < reach;
    if (isBack) return this.closePolygon();
    this.corners.push(point);
    this.say(`Corner ${this.corners.length} set.`);
    this.draw();
  }

  #finish() {
    const box = this.labels.touched;
    const hasChanged = this.labels.end();
    this.#changed(hasChanged ? box : null);
  }

  #changed(box) {
    if (!box) return;
    this.layer.update(box);
    this.draw();
    this.onChange();
  }

  #resize() {
    const dense = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * dense);
    this.canvas.height = Math.round(this.canvas.clientHeight * dense);
    this.fit();
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#drawNow();
    });
  }

  #drawNow() {
    const { context, canvas, viewport, image } = this;
    const dense = canvas.width / Math.max(1, canvas.clientWidth);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!image) return;
    const scale = dense * viewport.scale;
    context.setTransform(scale, 0, 0, scale, dense * viewport.left, dense * viewport.top);
    context.imageSmoothingEnabled = viewport.scale < 3;
    context.drawImage(image, 0, 0);
    if (!this.isHidden) {
      context.globalAlpha = OPACITY;
      context.drawImage(this.layer.canvas, 0, 0);
      context.globalAlpha = 1;
    }
    context.setTransform(dense, 0, 0, dense, 0, 0);
    this.#drawShapes();
  }

  #drawShapes() {
    const { viewport } = this;
    const cursor = this.cursor && viewport.toCanvas(...this.cursor);
    const corners = this.corners.map((corner) => viewport.toCanvas(...corner));
    if (corners.length) this.#outline((path) => [...corners, cursor ?? corners.at(-1)].forEach((at) => path.lineTo(...at)));
    for (const corner of corners) this.#outline((path) => path.arc(...corner, 3, 0, 7));
    if (!cursor) return;
    if (this.stroke?.kind === "box") {
      const from = viewport.toCanvas(...this.stroke.from);
      this.#outline((path) => path.rect(...from, cursor[0] - from[0], cursor[1] - from[1]));
    }
    if (this.tool === "brush") this.#outline((path) => path.arc(...cursor, (this.size / 2) * viewport.scale, 0, 7));
    if (this.showsCross) {
      const [x, y] = cursor;
      for (const [dx, dy] of [[8, 0], [0, 8]]) {
        this.#outline((path) => (path.moveTo(x - dx, y - dy), path.lineTo(x + dx, y + dy)));
      }
    }
  }

  /** Draw a line that is visible on dark and on light images. */
  #outline(trace) {
    const path = new Path2D();
    trace(path);
    for (const [width, colour] of [[3, "rgb(0 0 0 / 60%)"], [1.5, "white"]]) {
      this.context.lineWidth = width;
      this.context.strokeStyle = colour;
      this.context.stroke(path);
    }
  }
}
