// Mathematics that the server composed, rebuilt from a list of allowed elements: nothing else in it
// can become part of the page. Left out: writing mathematics.

const NAMESPACE = "http://www.w3.org/1998/Math/MathML";
const ELEMENTS = new Set(
  ("math mrow mi mn mo mtext mspace msub msup msubsup munder mover munderover mfrac msqrt mroot " +
    "mtable mtr mtd mstyle mpadded mphantom mfenced merror semantics").split(" "),
);
const ATTRIBUTES = new Set(
  ("display displaystyle scriptlevel mathvariant stretchy fence separator form lspace rspace accent " +
    "accentunder linethickness minsize maxsize movablelimits columnalign rowspacing columnspacing " +
    "width height depth symmetric largeop").split(" "),
);

function rebuilt(node) {
  if (node.nodeType === Node.TEXT_NODE) return document.createTextNode(node.data);
  if (node.nodeType !== Node.ELEMENT_NODE || !ELEMENTS.has(node.localName)) return null;
  const element = document.createElementNS(NAMESPACE, node.localName);
  for (const { name, value } of node.attributes) {
    if (ATTRIBUTES.has(name)) element.setAttribute(name, value);
  }
  for (const child of node.childNodes) {
    const own = rebuilt(child);
    if (own) element.append(own);
  }
  return element;
}

// Null if it is no mathematics: then the text is shown.
export function mathematics(source) {
  const parsed = new DOMParser().parseFromString(source || "", "application/xml");
  const roots = [...parsed.getElementsByTagNameNS("*", "math")];
  if (parsed.getElementsByTagName("parsererror").length || !roots.length) return null;
  const fragment = document.createDocumentFragment();
  for (const root of roots) fragment.append(rebuilt(root));
  return fragment;
}
