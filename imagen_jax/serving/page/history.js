// What was drawn in this browser session: settings and a small picture of each.

const KEY = "imagen_jax";
const KEPT = 40;
const SIDE = 96;

export class History {
  constructor(list, chosen) {
    this.list = list;
    this.chosen = chosen;
    this.drawings = load();
    this.#show();
  }

  add(drawing) {
    this.drawings.unshift(drawing);
    this.drawings.length = Math.min(this.drawings.length, KEPT);
    this.save();
  }

  find(id) {
    return this.drawings.find((drawing) => drawing.id === id);
  }

  // `shown` is the drawing on the easel.
  save(shown = this.shown) {
    this.shown = shown;
    const told = this.drawings.map(({ id, asked, state, thumb }) => ({ id, asked, state, thumb }));
    try {
      sessionStorage.setItem(KEY, JSON.stringify(told));
    } catch {
      // Full or forbidden: the page goes on without.
    }
    this.#show();
  }

  // Keep a small copy of a picture that is there.
  async picture(drawing, source) {
    const image = new Image();
    image.src = source;
    try {
      await image.decode();
    } catch {
      return;
    }
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const side = Math.min(image.naturalWidth, image.naturalHeight);
    const [x, y] = [(image.naturalWidth - side) / 2, (image.naturalHeight - side) / 2];
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = side > SIDE;
    context.drawImage(image, x, y, side, side, 0, 0, SIDE, SIDE);
    drawing.thumb = canvas.toDataURL("image/webp", 0.85);
    this.save();
  }

  #show() {
    this.list.replaceChildren(...this.drawings.map((drawing) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      const thumb = document.createElement("span");
      const said = document.createElement("span");
      button.type = "button";
      button.title = drawing.asked.prompt;
      if (this.shown === drawing) button.setAttribute("aria-current", "true");
      thumb.className = "thumb";
      if (drawing.thumb) {
        const image = new Image();
        image.src = drawing.thumb;
        image.alt = "";
        thumb.append(image);
      } else {
        thumb.textContent = drawing.state;
      }
      said.className = "said";
      said.textContent = drawing.asked.prompt;
      button.append(thumb, said);
      button.addEventListener("click", () => this.chosen(drawing));
      item.append(button);
      return item;
    }));
  }
}

function load() {
  try {
    const told = JSON.parse(sessionStorage.getItem(KEY)) ?? [];
    return told.filter((drawing) => drawing.id && drawing.asked?.prompt);
  } catch {
    return [];
  }
}
