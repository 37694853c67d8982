// Scale and offset of the image on the canvas, in CSS pixels.

const CLOSEST = 40;

export class Viewport {
  scale = 1;
  left = 0;
  top = 0;

  fit(canvas, width, height) {
    const margin = 8;
    this.scale = Math.min((canvas.clientWidth - margin) / width, (canvas.clientHeight - margin) / height);
    this.left = (canvas.clientWidth - width * this.scale) / 2;
    this.top = (canvas.clientHeight - height * this.scale) / 2;
    this.farthest = this.scale / 2;
  }

  toImage(x, y) {
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  toCanvas(x, y) {
    return [x * this.scale + this.left, y * this.scale + this.top];
  }

  move(dx, dy) {
    this.left += dx;
    this.top += dy;
  }

  /** Zoom around a fixed point of the canvas. */
  zoom(factor, x, y) {
    const scale = Math.min(CLOSEST, Math.max(this.farthest, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
  }
}
