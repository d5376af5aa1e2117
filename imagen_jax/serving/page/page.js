// The page: its parts, and what passes between them.

import { Brush, own } from "./brush.js";
import { Easel } from "./easel.js";
import { History } from "./history.js";
import * as server from "./server.js";
import { Settings } from "./settings.js";

const at = (id) => document.getElementById(id);
const going = (drawing) => ["waiting", "drawing"].includes(drawing.state);

function say(error) {
  at("error").textContent = error ? error.message : "";
  at("error").hidden = !error;
}

function words(unknown, name) {
  at("words").textContent = unknown?.length
    ? `${name} never saw: ${unknown.join(", ")}. It draws what the other words say.`
    : "";
}

const another = () => crypto.getRandomValues(new Uint32Array(1))[0];

async function start() {
  const model = await server.model();
  const last = model.stages.at(-1);
  at("model").textContent = `${model.name || "a model"}, ${model.stages.map(({ side }) => side).join(" → ")} px`;
  const first = model.stages[0];
  at("first-legend").textContent = `First stage: ${first.name}, ${first.side} px`;
  at("prompt").maxLength = at("brush-prompt").maxLength = at("negative").maxLength = model.limits.prompt;
  at("num").max = model.limits.pictures;
  at("resample").max = model.limits.repeats;
  at("seed").value = another();

  const settings = new Settings(model, at("table"), at("first"));
  const brush = new Brush((asked) => draw(asked));
  const easel = new Easel((blob, prompt) => brush.open(blob, prompt), say);
  const history = new History(at("history"), choose);
  const watch = new server.Watch(told, () => {
    if (easel.drawing && going(easel.drawing)) at("status").textContent = "The server does not answer; trying again…";
  });

  async function draw({ prompt, edit }) {
    say(null);
    const asked = {
      prompt,
      negative: at("negative").value,
      num: Number(at("num").value),
      seed: Number(at("seed").value),
      stages: settings.changes(),
    };
    const { drawing: id, unknown } = await server.ask(edit ? { ...asked, edit } : asked);
    words(unknown, model.name);
    const drawing = { id, asked: { ...asked, changed: Boolean(edit) }, state: "waiting", place: 0 };
    history.add(drawing);
    show(drawing);
    watch.add(id);
    if (at("renew").checked) at("seed").value = another();
    if (matchMedia("(max-width: 60rem)").matches) at("easel").scrollIntoView({ behavior: "smooth" });
  }

  function show(drawing) {
    easel.show(drawing);
    history.save(drawing);
  }

  // News of a drawing.
  function told(news) {
    const drawing = history.find(news.drawing);
    if (!drawing) return;
    const looks = { ...drawing.looks };
    for (const look of news.looks ?? []) looks[look.picture] = look;
    Object.assign(drawing, news, { looks });
    if (drawing === easel.drawing) easel.show(drawing);
    if (going(drawing)) return;
    const kept = drawing.stages?.findLast(({ count }) => count);
    if (kept) history.picture(drawing, server.picture(drawing.id, kept.name, 0));
    else history.save();
    if (drawing.state === "failed" && drawing === easel.drawing) say(new Error(drawing.error));
  }

  // One of the history: see it, and take its settings.
  function choose(drawing) {
    const { asked } = drawing;
    say(null);
    words(drawing.unknown, model.name);
    at("prompt").value = asked.prompt;
    at("negative").value = asked.negative ?? "";
    at("num").value = asked.num;
    at("seed").value = asked.seed;
    at("renew").checked = false;
    settings.set(asked.stages);
    show(drawing);
    if (!drawing.stages && !going(drawing)) again(drawing);
  }

  // After a reload the server may know more than the history does.
  async function again(drawing) {
    try {
      told(await server.look(drawing.id));
    } catch {
      told({ drawing: drawing.id, state: "gone" });
    }
  }

  at("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    at("draw").disabled = true;
    try {
      await draw({ prompt: at("prompt").value });
    } catch (error) {
      say(error);
    } finally {
      at("draw").disabled = false;
    }
  });
  // A field that is wrong and folded away could not say so.
  at("form").addEventListener("invalid", () => {
    at("advanced").open = true;
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || at("brush").open) return;
    event.preventDefault();
    at("form").requestSubmit();
  });
  at("cancel").addEventListener("click", async () => {
    const { drawing } = easel;
    try {
      drawing.stopping = true;
      easel.show(drawing);
      await server.cancel(drawing.id);
    } catch (error) {
      say(error);
    }
  });
  at("dice").addEventListener("click", () => {
    at("seed").value = another();
  });
  at("reset").addEventListener("click", () => settings.reset());
  at("upload").addEventListener("change", async () => {
    const [file] = at("upload").files;
    at("upload").value = "";
    if (!file) return;
    try {
      await brush.open(await own(file), at("prompt").value);
    } catch (error) {
      say(error);
    }
  });

  for (const drawing of history.drawings.filter(going)) watch.add(drawing.id);
  if (history.drawings.length) choose(history.drawings[0]);
  document.body.dataset.ready = "true";
}

start().catch(say);
