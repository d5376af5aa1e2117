// The drawing that is looked at.

import * as server from "./server.js";

const at = (id) => document.getElementById(id);
const COARSE = 64; // Pictures with fewer pixels are shown with their pixels.

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

export function standing(drawing) {
  const seconds = drawing.seconds ? ` in ${drawing.seconds} s` : "";
  switch (drawing.state) {
    case "waiting":
      return drawing.place ? `Waiting; ${plural(drawing.place, "drawing")} before this one.` : "Waiting.";
    case "drawing":
      if (drawing.stopping) return "Stopping after this step…";
      return drawing.total
        ? `Drawing: ${drawing.stage}, step ${drawing.step} of ${drawing.steps}.`
        : "Preparing; the first drawing with new steps, solvers or numbers of pictures takes longer.";
    case "done":
      return `Drawn${seconds}.`;
    case "cancelled":
      return drawing.stages?.length ? `Cancelled${seconds}; what was done is here.` : "Cancelled.";
    case "gone":
      return "The server does not keep this drawing any more; draw it again.";
    default:
      return "Failed.";
  }
}

export class Easel {
  // `change(blob, prompt)` opens the brush; `fail(error)` tells what went wrong.
  constructor(change, fail) {
    this.change = change;
    this.fail = fail;
    this.drawing = null;
  }

  show(drawing) {
    const other = this.drawing !== drawing;
    this.drawing = drawing;
    const going = ["waiting", "drawing"].includes(drawing.state);
    at("status").textContent = standing(drawing);
    at("cancel").hidden = !going || Boolean(drawing.stopping);
    at("progress").hidden = !going;
    if (drawing.total) at("progress").value = drawing.done / drawing.total;
    else at("progress").removeAttribute("value");
    at("caption").textContent = this.#caption(drawing);
    const place = at("pictures");
    place.classList.toggle("single", drawing.asked.num === 1);
    place.classList.toggle("two", drawing.asked.num === 2);
    place.classList.toggle("waiting", going);
    if (other) place.replaceChildren(...this.#figures(drawing));
    for (const [i, figure] of [...place.children].entries()) this.#fill(figure, drawing, i);
  }

  #caption({ asked }) {
    const parts = [`“${asked.prompt}”`, `seed ${asked.seed}`];
    if (asked.negative) parts.push(`away from “${asked.negative}”`);
    if (asked.changed) parts.push("a picture changed");
    return parts.join(" · ");
  }

  #figures(drawing) {
    return Array.from({ length: drawing.asked.num }, () => {
      const figure = document.createElement("figure");
      const frame = document.createElement("div");
      frame.className = "frame";
      figure.append(frame, document.createElement("figcaption"));
      return figure;
    });
  }

  #fill(figure, drawing, i) {
    if (!drawing.stages) {
      const look = drawing.looks?.[i];
      if (look) this.#picture(figure, look.source, look.side, `${drawing.asked.prompt}, in the making: ${look.stage}`, look.stage);
      return;
    }
    const there = drawing.stages.filter((stage) => i < stage.count);
    const chosen = drawing.chosen?.[i];
    const stage = there.find(({ name }) => name === chosen) ?? there.at(-1);
    const caption = figure.querySelector("figcaption");
    if (!stage) return;
    const source = server.picture(drawing.id, stage.name, i);
    const key = `${drawing.id} ${stage.name}`;
    if (figure.dataset.key === key) return;
    figure.dataset.key = key;
    const side = Math.max(stage.width, stage.height);
    this.#picture(figure, source, side, `${drawing.asked.prompt}, ${stage.width} × ${stage.height}`, stage.name);
    const stages = document.createElement("span");
    stages.className = "stages";
    stages.append(...there.map(({ name, width }) => {
      const one = button(`${width} px`, () => {
        drawing.chosen = { ...drawing.chosen, [i]: name };
        this.show(drawing);
      });
      one.title = `Stage ${name}`;
      one.ariaPressed = String(name === stage.name);
      return one;
    }));
    const download = document.createElement("a");
    download.className = "button";
    download.textContent = "Download";
    download.title = "A PNG that holds its settings";
    download.href = source;
    download.download = `${slug(drawing.asked.prompt)}_${drawing.asked.seed}_${i}_${stage.name}.png`;
    const change = button("Change…", async () => {
      try {
        const answer = await fetch(source);
        if (!answer.ok) throw new Error("The server does not keep this picture any more.");
        await this.change(await answer.blob(), drawing.asked.prompt);
      } catch (error) {
        this.fail(error);
      }
    });
    change.title = "In-paint with a brush, or change all of it";
    caption.replaceChildren(stages, download, change);
  }

  #picture(figure, source, side, text, stage) {
    const frame = figure.querySelector(".frame");
    const image = frame.querySelector("img") ?? frame.appendChild(new Image());
    image.src = source;
    image.alt = text;
    image.dataset.stage = stage;
    image.classList.toggle("coarse", side < COARSE);
  }
}

function slug(text) {
  return text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40) || "picture";
}
