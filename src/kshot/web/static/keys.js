// Keyboard shortcuts of the editor.

const STEP = 12; // CSS pixels
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TOOLS = { b: "brush", p: "polygon", r: "box", m: "move" };

/** actions: choose(name, value), size(factor), pick(index), help(). */
export function bindKeys(section, editor, actions) {
  section.addEventListener("keydown", (event) => {
    const isCanvas = event.target === editor.canvas;
    if (event.target.matches("input[type=text], select")) return;
    if (onCommand(event, editor) || (isCanvas && onCanvas(event, editor)) || onLetter(event, editor, actions)) {
      event.preventDefault();
    }
  });
  section.addEventListener("keyup", (event) => {
    if (event.key === " ") editor.isSpaceDown = false;
  });
}

function onCommand(event, editor) {
  if (!event.ctrlKey && !event.metaKey) return false;
  const key = event.key.toLowerCase();
  if (key === "z" && !event.shiftKey) return editor.undo(), true;
  if (key === "y" || key === "z") return editor.redo(), true;
  return false;
}

function onCanvas(event, editor) {
  const arrow = ARROWS[event.key];
  if (arrow) {
    const step = event.shiftKey ? editor.viewport.scale : STEP; // one image pixel
    editor.step(arrow[0] * step, arrow[1] * step);
  } else if (event.key === "Enter") editor.act();
  else if (event.key === " ") editor.isSpaceDown = true;
  else if (event.key === "Backspace" && editor.corners.length) editor.undo();
  else if (event.key === "Escape") editor.cancel();
  else return false;
  return true;
}

function onLetter(event, editor, actions) {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const key = event.key.toLowerCase();
  if (TOOLS[key]) actions.choose("tool", TOOLS[key]);
  else if (key === "e") actions.choose("mode", editor.mode === "paint" ? "erase" : "paint");
  else if (key === "[") actions.size(0.8);
  else if (key === "]") actions.size(1.25);
  else if (key === "+" || key === "=") editor.zoom(1.25);
  else if (key === "-") editor.zoom(0.8);
  else if (key === "0") editor.fit();
  else if (key === "c") editor.closePolygon();
  else if (key === "h") (editor.isHidden = !editor.isHidden), editor.draw();
  else if (/^[1-9]$/.test(key)) actions.pick(Number(key) - 1);
  else if (key === "?") actions.help();
  else return false;
  return true;
}
