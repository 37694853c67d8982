// Labelled photographs that come with kshot, to try it with.

export const EXAMPLES = [
  { name: "Coins", photo: "coins.jpg", mask: "coins_mask.png", size: [384, 303] },
  { name: "Cat's eye", photo: "cat.jpg", mask: "cat_mask.png", size: [451, 300] },
];

export async function fetchExample({ photo, mask }) {
  const [picture, labels] = await Promise.all(
    [photo, mask].map(async (name) => (await fetch(`static/examples/${name}`)).blob()),
  );
  return { photo: new File([picture], photo, { type: picture.type }), mask: labels };
}
