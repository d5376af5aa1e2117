// A mask painted over a picture.

const at = (id) => document.getElementById(id);
const LARGEST = 1024; // Longer sides of a person's own pictures are shrunk to it.
const PAINT = "#e0218a";

export function base64(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.split(",")[1]);
    reader.onerror = () => failed(new Error("The picture cannot be read."));
    reader.readAsDataURL(blob);
  });
}

const png = (canvas) => new Promise((done) => canvas.toBlob(done, "image/png"));

// A person's own file as a PNG of a bounded size, upright, without its metadata.
export async function own(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is no picture that this browser can read.`);
  }
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return png(canvas);
}

export class Brush {
  // `drawn` is given {prompt, edit} and may throw; then the dialog stays and says why.
  constructor(drawn) {
    this.dialog = at("brush");
    this.shown = at("shown");
    this.mask = at("mask");
    this.context = this.mask.getContext("2d", { willReadFrequently: true });
    this.past = [];
    this.place = null;
    at("brush-close").onclick = () => this.dialog.close();
    at("undo").onclick = () => this.#undo();
    at("clear").onclick = () => this.#clear();
    at("size").oninput = () => this.#ring();
    at("brush-form").onsubmit = async (event) => {
      event.preventDefault();
      at("brush-draw").disabled = true;
      this.#say("");
      try {
        await drawn(await this.asked());
        this.dialog.close();
      } catch (error) {
        this.#say(error.message);
      } finally {
        at("brush-draw").disabled = false;
      }
    };
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        at("brush-form").requestSubmit();
      }
    });
    this.#listen();
  }

  async open(blob, prompt) {
    this.blob = blob;
    const bitmap = await createImageBitmap(blob);
    for (const canvas of [this.shown, this.mask]) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    this.shown.getContext("2d").drawImage(bitmap, 0, 0);
    this.past = [];
    this.place = { x: bitmap.width / 2, y: bitmap.height / 2 };
    at("brush-prompt").value = prompt;
    at("ring").hidden = true;
    this.#say("");
    this.dialog.showModal();
  }

  async asked() {
    const edit = { picture: await base64(this.blob) };
    const mask = this.#painted();
    if (mask) edit.mask = await base64(await png(mask));
    for (const name of ["strength", "resample"]) {
      if (at(name).value !== "") edit[name] = Number(at(name).value);
    }
    return { prompt: at("brush-prompt").value, edit };
  }

  // White where it was painted, black elsewhere; null if nowhere.
  #painted() {
    const { width, height } = this.mask;
    const image = this.context.getImageData(0, 0, width, height);
    let some = false;
    for (let i = 0; i < image.data.length; i += 4) {
      const on = image.data[i + 3] > 127;
      some ||= on;
      image.data.fill(on ? 255 : 0, i, i + 3);
      image.data[i + 3] = 255;
    }
    if (!some) return null;
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  #listen() {
    const place = (event) => {
      const box = this.mask.getBoundingClientRect();
      const scale = this.mask.width / box.width;
      return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
    };
    this.mask.onpointerdown = (event) => {
      event.preventDefault();
      this.mask.focus();
      this.mask.setPointerCapture(event.pointerId);
      this.#remember();
      this.place = place(event);
      this.#stroke(this.place, this.place);
      this.painting = true;
      this.#ring();
    };
    this.mask.onpointermove = (event) => {
      const next = place(event);
      if (this.painting) this.#stroke(this.place, next);
      this.place = next;
      this.#ring();
    };
    this.mask.onpointerup = this.mask.onpointercancel = () => {
      this.painting = false;
    };
    this.mask.onpointerleave = () => {
      if (document.activeElement !== this.mask) at("ring").hidden = true;
    };
    this.mask.onfocus = () => this.#ring();
    this.mask.onblur = () => {
      at("ring").hidden = true;
    };
    this.mask.onkeydown = (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const move = moves[event.key];
      const step = this.mask.width / 32;
      if (move) {
        const inside = (value, most) => Math.min(most, Math.max(0, value));
        this.place = {
          x: inside(this.place.x + move[0] * step, this.mask.width),
          y: inside(this.place.y + move[1] * step, this.mask.height),
        };
        this.#ring();
      } else if (event.key === " ") {
        this.#remember();
        this.#stroke(this.place, this.place);
      } else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
        this.#undo();
      } else {
        return;
      }
      event.preventDefault();
    };
  }

  get #width() {
    return (Number(at("size").value) / 100) * this.mask.width;
  }

  #stroke(from, to) {
    const { context } = this;
    context.globalCompositeOperation = at("eraser").checked ? "destination-out" : "source-over";
    context.strokeStyle = PAINT;
    context.lineWidth = this.#width;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x + 0.01, to.y);
    context.stroke();
  }

  #ring() {
    const ring = at("ring");
    const scale = this.mask.getBoundingClientRect().width / this.mask.width;
    ring.hidden = false;
    ring.style.width = ring.style.height = `${this.#width * scale}px`;
    ring.style.left = `${this.place.x * scale}px`;
    ring.style.top = `${this.place.y * scale}px`;
  }

  #remember() {
    this.past.push(this.context.getImageData(0, 0, this.mask.width, this.mask.height));
    if (this.past.length > 20) this.past.shift();
  }

  #undo() {
    const before = this.past.pop();
    if (before) this.context.putImageData(before, 0, 0);
  }

  #clear() {
    this.#remember();
    this.context.clearRect(0, 0, this.mask.width, this.mask.height);
  }

  #say(text) {
    at("brush-error").textContent = text;
    at("brush-error").hidden = !text;
  }
}
