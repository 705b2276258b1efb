// Thumbnails and heatmaps, decoded from the page's parts when a tile needs them.

const IN_FLIGHT = 8; // parts that are loaded at once
const HELD = 64e6; // characters of parts that are kept, besides those shown

class ReviewImages {
  constructor(data, onPart, onFault) {
    this.data = data;
    this.onPart = onPart;
    this.onFault = onFault;
    this.parts = new Map(); // the least recently used come first
    this.held = 0;
    this.loading = new Set();
    this.faulty = new Set();
    this.queue = [];
    this.start = []; // of each thumbnail, in characters within its part
    this.mapStart = []; // of the heatmaps within each part
    this.length = []; // of each part
    let sum = 0;
    data.bytes.forEach((length, index) => {
      if (index % data.part === 0) sum = 0;
      this.start.push(sum);
      sum += length;
      const number = Math.floor(index / data.part), count = (index % data.part) + 1;
      const pixels = data.maps ? count * data.maps.height * data.maps.width : 0;
      this.mapStart[number] = sum;
      this.length[number] = sum + 4 * Math.ceil(pixels / 3);
    });
    if (data.maps) this.colours = heatColours();
    // What a file of the folder calls.
    window.reviewPart = (id, number, text) => {
      if (id === data.id && text.length === this.length[number]) this.hold(number, text);
    };
  }

  partOf(index) {
    return Math.floor(index / this.data.part);
  }

  // Returns a data URL; null while it is not loaded, "" if the image cannot be read.
  thumbnail(index) {
    const length = this.data.bytes[index];
    if (!length || this.faulty.has(this.partOf(index))) return "";
    const part = this.part(this.partOf(index));
    if (!part) return null;
    return "data:image/webp;base64," + part.text.slice(this.start[index], this.start[index] + length);
  }

  // Returns a canvas that covers the map's part of the image, or null.
  heatmap(index) {
    const maps = this.data.maps, number = this.partOf(index);
    const part = maps && this.data.bytes[index] ? this.part(number) : null;
    if (!part) return null;
    const size = maps.height * maps.width, first = (index % this.data.part) * size;
    part.maps ??= Uint8Array.from(atob(part.text.slice(this.mapStart[number])), (letter) => letter.charCodeAt(0));
    const canvas = document.createElement("canvas");
    canvas.width = maps.width;
    canvas.height = maps.height;
    paintHeat(canvas, part.maps.subarray(first, first + size), this.colours);
    const [left, top, right, bottom] = maps.window;
    canvas.style.left = 100 * left + "%";
    canvas.style.top = 100 * top + "%";
    canvas.style.width = 100 * (right - left) + "%";
    canvas.style.height = 100 * (bottom - top) + "%";
    return canvas;
  }

  part(number) {
    const part = this.parts.get(number);
    if (part) {
      this.parts.delete(number);
      this.parts.set(number, part);
      return part;
    }
    if (this.data.folder) return null;
    const text = document.getElementById("part-" + number)?.textContent ?? "";
    return text.length === this.length[number] ? this.hold(number, text) : null;
  }

  hold(number, text) {
    this.parts.set(number, { text });
    this.held += text.length;
    for (const [old, { text: dropped }] of this.parts) {
      if (this.held <= HELD || old === number) break;
      this.parts.delete(old);
      this.held -= dropped.length;
    }
    return this.parts.get(number);
  }

  // Loads the parts of these images, the first ones first, before or instead of what was still to
  // be loaded.
  want(indices, { instead = true } = {}) {
    if (!this.data.folder) return;
    const numbers = indices.map((index) => this.partOf(index));
    this.queue = [...new Set(instead ? numbers : [...numbers, ...this.queue])];
    this.load();
  }

  load() {
    while (this.queue.length && this.loading.size < IN_FLIGHT) {
      const number = this.queue.shift();
      if (this.parts.has(number) || this.loading.has(number) || this.faulty.has(number)) continue;
      this.loading.add(number);
      const script = document.createElement("script");
      const file = `${this.data.folder}/part-${String(number).padStart(5, "0")}.js`;
      script.onload = script.onerror = () => {
        script.remove();
        this.loading.delete(number);
        if (!this.parts.has(number)) {
          this.faulty.add(number);
          this.onFault(file);
        }
        this.onPart();
        this.load();
      };
      script.src = file;
      document.head.append(script);
    }
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
