// Labelled example images that ship with kshot.

export const EXAMPLES = [
  { name: "Coins", image: "coins.jpg", mask: "coins_mask.png", size: [384, 303] },
  { name: "Cat's eye", image: "cat.jpg", mask: "cat_mask.png", size: [451, 300] },
];

export async function fetchExample({ image, mask }) {
  const [pixels, labels] = await Promise.all(
    [image, mask].map(async (name) => (await fetch(`static/examples/${name}`)).blob()),
  );
  return { image: new File([pixels], image, { type: pixels.type }), mask: labels };
}
