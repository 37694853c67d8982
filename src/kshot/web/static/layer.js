// The labels as a coloured canvas of the image's size, updated box by box.

export class Layer {
  constructor(labels) {
    this.labels = labels;
    this.canvas = new OffscreenCanvas(labels.width, labels.height);
    this.context = this.canvas.getContext("2d");
    this.palette = new Uint8Array(4 * 256);
  }

  /** Set the colours of the classes and redraw all labels. */
  colour(classes) {
    this.palette.fill(0);
    for (const { value, colour } of classes) {
      this.palette.set([1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16)), 4 * value);
      this.palette[4 * value + 3] = 255;
    }
    this.update({ left: 0, top: 0, right: this.labels.width, bottom: this.labels.height });
  }

  update(box) {
    const [width, height] = [box.right - box.left, box.bottom - box.top];
    if (width <= 0 || height <= 0) return;
    const pixels = new ImageData(width, height);
    for (let y = 0, place = 0; y < height; y++) {
      const row = (box.top + y) * this.labels.width + box.left;
      for (let x = 0; x < width; x++, place += 4) {
        const colour = 4 * this.labels.values[row + x];
        for (let channel = 0; channel < 4; channel++) pixels.data[place + channel] = this.palette[colour + channel];
      }
    }
    this.context.putImageData(pixels, box.left, box.top);
  }
}
