// The labels of one image, one byte per pixel, with shapes to fill and an undo history.

const MOST_STEPS = 200;
const MOST_BYTES = 128 * 2 ** 20;

export class Labels {
  constructor(width, height, values = new Uint8Array(width * height)) {
    Object.assign(this, { width, height, values });
    this.done = [];
    this.undone = [];
    this.before = null;
    this.touched = null;
  }

  get isEmpty() {
    return !this.values.some((value) => value > 0);
  }

  /** Begin a step that can be undone. */
  begin() {
    this.before = this.values.slice();
    this.touched = null;
  }

  /** End the step; returns whether it changed anything. */
  end() {
    const { before, touched } = this;
    this.before = this.touched = null;
    if (!before || !touched) return false;
    const step = { box: touched, old: this.#cut(before, touched), now: this.#cut(this.values, touched) };
    if (step.old.every((value, place) => value === step.now[place])) return false;
    this.done.push(step);
    this.undone = [];
    let bytes = 0;
    const kept = this.done.findLastIndex((one) => (bytes += 2 * one.old.length) > MOST_BYTES);
    this.done = this.done.slice(Math.max(kept + 1, this.done.length - MOST_STEPS, 0));
    return true;
  }

  /** Cancel the step and restore the labels; returns the changed box. */
  cancel() {
    const { before, touched } = this;
    if (before && touched) this.#paste(this.#cut(before, touched), touched);
    this.before = this.touched = null;
    return touched;
  }

  /** Undo a step; returns the changed box, or null. */
  undo() {
    return this.#move(this.done, this.undone, "old");
  }

  redo() {
    return this.#move(this.undone, this.done, "now");
  }

  /** Fill all pixels whose centres are within `radius` of a line. */
  line(x0, y0, x1, y1, radius, value) {
    const box = this.#clip(
      Math.min(x0, x1) - radius, Math.min(y0, y1) - radius, Math.max(x0, x1) + radius, Math.max(y0, y1) + radius
    );
    const [dx, dy] = [x1 - x0, y1 - y0];
    const length = dx * dx + dy * dy;
    this.#fill(box, value, (x, y) => {
      const along = length ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / length)) : 0;
      return (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2 <= radius * radius;
    });
    // A brush thinner than a pixel still paints the pixel below it.
    const [x, y] = [Math.floor(x1), Math.floor(y1)];
    this.#fill(this.#clip(x, y, x + 1, y + 1), value, () => true);
    return this.touched;
  }

  box(x0, y0, x1, y1, value) {
    const round = Math.round;
    const [left, right] = [round(Math.min(x0, x1)), round(Math.max(x0, x1))];
    const [top, bottom] = [round(Math.min(y0, y1)), round(Math.max(y0, y1))];
    this.#fill(this.#clip(left, top, right, bottom), value, () => true);
    return this.touched;
  }

  /** Fill a polygon's pixels: those whose centres are inside by the even-odd rule. */
  polygon(points, value) {
    const xs = points.map(([x]) => x);
    const ys = points.map(([, y]) => y);
    const box = this.#clip(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys));
    this.#fill(box, value, (x, y) => {
      let inside = false;
      for (let i = 0, j = points.length - 1; i < points.length; j = i++) {
        const [[xi, yi], [xj, yj]] = [points[i], points[j]];
        if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
      }
      return inside;
    });
    return this.touched;
  }

  #clip(left, top, right, bottom) {
    const within = (value, most) => Math.min(most, Math.max(0, value));
    return {
      left: within(Math.floor(left), this.width),
      top: within(Math.floor(top), this.height),
      right: within(Math.ceil(right), this.width),
      bottom: within(Math.ceil(bottom), this.height),
    };
  }

  #fill(box, value, isInside) {
    if (box.left >= box.right || box.top >= box.bottom) return;
    for (let y = box.top; y < box.bottom; y++) {
      for (let x = box.left; x < box.right; x++) {
        if (isInside(x + 0.5, y + 0.5)) this.values[y * this.width + x] = value;
      }
    }
    this.touched = this.touched ? union(this.touched, box) : box;
  }

  #move(from, to, which) {
    const step = from.pop();
    if (!step) return null;
    this.#paste(step[which], step.box);
    to.push(step);
    return step.box;
  }

  #cut(values, box) {
    const width = box.right - box.left;
    const part = new Uint8Array(width * (box.bottom - box.top));
    for (let y = box.top; y < box.bottom; y++) {
      const start = y * this.width + box.left;
      part.set(values.subarray(start, start + width), (y - box.top) * width);
    }
    return part;
  }

  #paste(part, box) {
    const width = box.right - box.left;
    for (let y = box.top; y < box.bottom; y++) {
      const row = (y - box.top) * width;
      this.values.set(part.subarray(row, row + width), y * this.width + box.left);
    }
  }
}

function union(a, b) {
  return {
    left: Math.min(a.left, b.left),
    top: Math.min(a.top, b.top),
    right: Math.max(a.right, b.right),
    bottom: Math.max(a.bottom, b.bottom),
  };
}
