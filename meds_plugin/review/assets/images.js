// Thumbnails and heatmaps, decoded from the page's text when a tile needs them.

class ReviewImages {
  constructor(data) {
    this.data = data;
    this.texts = new Map();
    this.bytes = new Map();
    this.start = []; // of each thumbnail, in characters within its chunk
    this.total = []; // characters per chunk
    let sum = 0;
    data.bytes.forEach((length, index) => {
      if (index % data.chunk === 0) sum = 0;
      this.start.push(sum);
      sum += length;
      this.total[Math.floor(index / data.chunk)] = sum;
    });
    if (data.maps) this.colours = heatColours();
  }

  // Returns a data URL; null while the page is still loading, "" if the image cannot be read.
  thumbnail(index) {
    const length = this.data.bytes[index];
    if (!length) return "";
    const number = Math.floor(index / this.data.chunk);
    const text = this.text("thumbs", number, this.total[number]);
    if (text === null) return null;
    return "data:image/webp;base64," + text.slice(this.start[index], this.start[index] + length);
  }

  // Returns a canvas that covers the map's part of the image, or null.
  heatmap(index) {
    const maps = this.data.maps;
    if (!maps || !this.data.bytes[index]) return null;
    const number = Math.floor(index / this.data.chunk), size = maps.height * maps.width;
    const count = Math.min(this.data.chunk, this.data.path.length - number * this.data.chunk);
    const text = this.text("maps", number, 4 * Math.ceil((count * size) / 3));
    if (text === null) return null;
    if (!this.bytes.has(number)) {
      this.bytes.set(number, Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
    }
    const first = (index % this.data.chunk) * size;
    const canvas = document.createElement("canvas");
    canvas.width = maps.width;
    canvas.height = maps.height;
    paintHeat(canvas, this.bytes.get(number).subarray(first, first + size), this.colours);
    const [left, top, right, bottom] = maps.window;
    canvas.style.left = 100 * left + "%";
    canvas.style.top = 100 * top + "%";
    canvas.style.width = 100 * (right - left) + "%";
    canvas.style.height = 100 * (bottom - top) + "%";
    return canvas;
  }

  text(kind, number, length) {
    const name = kind + "-" + number;
    if (this.texts.has(name)) return this.texts.get(name);
    const element = document.getElementById(name);
    const text = element ? element.textContent : "";
    if (text.length !== length) return null;
    this.texts.set(name, text);
    return text;
  }
}

// From transparent through violet and red to pale yellow, ever lighter and more opaque.
function heatColours() {
  const stops = [[60, 15, 110], [150, 35, 125], [225, 65, 85], [250, 140, 60], [255, 245, 165]];
  const colours = new Uint8ClampedArray(4 * 256);
  for (let value = 0; value < 256; value += 1) {
    const at = (value / 255) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
    for (let part = 0; part < 3; part += 1) {
      colours[4 * value + part] = stops[low][part] + (at - low) * (stops[low + 1][part] - stops[low][part]);
    }
    colours[4 * value + 3] = 225 * Math.min(1, (value / 255) * 1.6);
  }
  return colours;
}

function paintHeat(canvas, values, colours) {
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, at) => {
    pixels.data.set(colours.subarray(4 * value, 4 * value + 4), 4 * at);
  });
  context.putImageData(pixels, 0, 0);
}
